// Command testapp is the program in the images of the end-to-end tests: one static file that does,
// by its first argument, what a test needs to see from inside a container.
//
// Called as node_exporter it stands in for the real one, so that the example's manifest runs as
// written where no registry can be reached.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	args := os.Args[1:]
	if filepath.Base(os.Args[0]) != "testapp" {
		args = append([]string{filepath.Base(os.Args[0])}, args...)
	}
	if len(args) == 0 {
		args = []string{"sleep"}
	}
	if err := run(args[0], args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "testapp: %v\n", err)
		os.Exit(1)
	}
}

func run(command string, args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	switch command {
	case "sleep", "pause":
		fmt.Println("sleeping")
		<-ctx.Done()
		return nil
	case "deaf": // to the signals that ask it to end
		fmt.Println("sleeping")
		select {}
	case "burn": // a processor, as much of it as there is
		for ctx.Err() == nil {
		}
		return nil
	case "hold": // so many MiB of memory
		mib, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		held := bytes.Repeat([]byte{1}, mib<<20)
		<-ctx.Done()
		runtime.KeepAlive(held)
		return nil
	case "threads": // so many of them
		count, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		for range count {
			go func() {
				runtime.LockOSThread()
				<-ctx.Done()
			}()
		}
		<-ctx.Done()
		return nil
	case "serve":
		return serve(ctx, ":"+args[0], http.HandlerFunc(hello))
	case "node_exporter":
		return serve(ctx, ":9100", metrics(args))
	case "get":
		return get(http.DefaultClient, args[0], "")
	case "api":
		return api(args[0])
	case "cat":
		text, err := os.ReadFile(args[0])
		fmt.Print(string(text))
		return err
	case "env":
		fmt.Println(strings.Join(os.Environ(), "\n"))
		return nil
	case "echo":
		fmt.Println(strings.Join(args, " "))
		return nil
	case "lines": // COUNT numbered lines, a hundred at a time, and then the exit code CODE
		return lines(ctx, args)
	case "fill": // a file PATH of MIB mebibytes, and then sleep
		if err := fill(args); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	case "hostname":
		host, err := os.Hostname()
		fmt.Println(host)
		return err
	case "copy": // standard input to standard output, until it ends
		_, err := io.Copy(os.Stdout, os.Stdin)
		return err
	case "wait":
		d, err := time.ParseDuration(args[0])
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
		return nil
	case "until": // a file is there
		for ctx.Err() == nil {
			if _, err := os.Stat(args[0]); err == nil {
				return nil
			}
			time.Sleep(20 * time.Millisecond)
		}
		return ctx.Err()
	case "note":
		return note(args[0], args[1], args[2:])
	case "exit":
		code, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		os.Exit(code)
	}
	return fmt.Errorf("unknown command %q", command)
}

func lines(ctx context.Context, args []string) error {
	count, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	padding := strings.Repeat("x", 80)
	for i := range count {
		fmt.Printf("line %06d %s\n", i, padding)
		if i%100 == 99 {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(200 * time.Millisecond):
			}
		}
	}
	code, err := strconv.Atoi(args[1])
	if err == nil && code != 0 {
		os.Exit(code)
	}
	return err
}

func fill(args []string) error {
	mib, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	f, err := os.Create(args[0])
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	block := make([]byte, 1<<20)
	for i := range block {
		block[i] = byte(i)
	}
	for range mib {
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	fmt.Println("filled", args[0])
	return f.Sync()
}

// note writes into a file that this process runs, holds the file's lock as long as it does, and goes
// on as another command: a file tells which processes ran and when, and whether two did at once.
func note(file, name string, command []string) error {
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	beside := ""
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		beside = " beside another"
	}
	if _, err := fmt.Fprintf(f, "%s %s%s\n", name, time.Now().Format(time.RFC3339Nano), beside); err != nil {
		return err
	}
	return run(command[0], command[1:])
}

func serve(ctx context.Context, address string, handler http.Handler) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("listening on", address)
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func hello(w http.ResponseWriter, r *http.Request) {
	fmt.Println(r.Method, r.URL.Path)
	host, _ := os.Hostname()
	fmt.Fprintf(w, "hello from %s\n", host)
}

// metrics answers with what it can only know if the host's directories are mounted.
func metrics(args []string) http.Handler {
	proc := "/proc"
	for _, arg := range args {
		if value, ok := strings.CutPrefix(arg, "--path.procfs="); ok {
			proc = value
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		name, err := os.ReadFile(filepath.Join(proc, "sys/kernel/hostname"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, "node_uname_info{nodename=%q} 1\n", strings.TrimSpace(string(name)))
	})
}

func get(client *http.Client, url, token string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if _, err := io.Copy(os.Stdout, response.Body); err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return errors.New(response.Status)
	}
	return nil
}

// api asks the API server as every program in a pod does.
func api(path string) error {
	const dir = "/var/run/secrets/kubernetes.io/serviceaccount/"
	token, err := os.ReadFile(dir + "token")
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(dir + "ca.crt")
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return errors.New("no certificate in ca.crt")
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
	host := net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT"))
	return get(client, "https://"+host+path, string(token))
}
