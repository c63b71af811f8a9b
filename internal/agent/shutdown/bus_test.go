package shutdown

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// privateBus is a message bus with nothing on it but a login manager and a service manager, as much
// of them as graceful shutdown uses.
type privateBus struct {
	t        *testing.T
	override string // file that the login manager reads when told to

	mu      sync.Mutex
	conn    *net.UnixConn
	delay   uint64 // microseconds
	without bool   // there is no login manager
	deaf    bool   // it does not read its configuration
	locks   []*os.File
}

func newPrivateBus(t *testing.T) *privateBus {
	dir := t.TempDir()
	b := &privateBus{t: t, override: filepath.Join(dir, "logind.conf.d", "x.conf"), delay: 5_000_000}
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "bus"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+filepath.Join(dir, "bus"))
	go func() {
		for {
			conn, err := listener.AcceptUnix()
			if err != nil {
				return
			}
			go b.serve(conn)
		}
	}()
	return b
}

func (b *privateBus) serve(conn *net.UnixConn) {
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	if !greet(conn, in) {
		return
	}
	b.mu.Lock()
	b.conn = conn
	b.mu.Unlock()
	for {
		call, err := dbus.DecodeMessage(in)
		if err != nil {
			return
		}
		member, _ := call.Headers[dbus.FieldMember].Value().(string)
		body := b.answer(member, call.Body)
		b.send(&dbus.Message{Type: dbus.TypeMethodReply, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldReplySerial: dbus.MakeVariant(call.Serial()), dbus.FieldSender: dbus.MakeVariant(loginService),
		}, Body: body})
	}
}

// greet is the bus's part of the authentication.
func greet(conn net.Conn, in *bufio.Reader) bool {
	if _, err := in.ReadByte(); err != nil {
		return false
	}
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return false
		}
		answer := ""
		switch line = strings.TrimSpace(line); {
		case line == "AUTH":
			answer = "REJECTED EXTERNAL"
		case strings.HasPrefix(line, "AUTH EXTERNAL"):
			answer = "OK 0123456789abcdef0123456789abcdef"
		case line == "NEGOTIATE_UNIX_FD":
			answer = "AGREE_UNIX_FD"
		case line == "BEGIN":
			return true
		}
		if _, err := fmt.Fprintf(conn, "%s\r\n", answer); err != nil {
			return false
		}
	}
}

func (b *privateBus) answer(member string, args []any) []any {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch member {
	case "Hello":
		return []any{":1.1"}
	case "NameHasOwner":
		return []any{!b.without && args[0] == loginService}
	case "Get":
		return []any{dbus.MakeVariant(b.delay)}
	case "Inhibit":
		if want := []any{"shutdown", "everynode", "pods have to stop first", "delay"}; fmt.Sprint(args) != fmt.Sprint(want) {
			b.t.Errorf("inhibits %v", args)
		}
		read, write, err := os.Pipe()
		if err != nil {
			b.t.Error(err)
			return nil
		}
		b.locks = append(b.locks, read, write)
		return []any{dbus.UnixFD(write.Fd())}
	case "KillUnit":
		if fmt.Sprint(args) != "[systemd-logind.service all 1]" {
			b.t.Errorf("signals %v", args)
		}
		text, err := os.ReadFile(b.override)
		if err != nil {
			b.t.Error(err)
		}
		var seconds uint64
		if _, err := fmt.Sscanf(string(text[bytes.LastIndexByte(text, '='):]), "=%d", &seconds); err != nil {
			b.t.Errorf("%s: %v", text, err)
		}
		if !b.deaf {
			b.delay = seconds * 1_000_000
		}
	}
	return nil
}

func (b *privateBus) send(m *dbus.Message) {
	if len(m.Body) > 0 {
		m.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(m.Body...))
	}
	if n, _ := m.CountFds(); n > 0 {
		m.Headers[dbus.FieldUnixFDs] = dbus.MakeVariant(uint32(n))
	}
	var out bytes.Buffer
	fds, err := m.EncodeToWithFDs(&out, binary.LittleEndian)
	if err != nil {
		b.t.Error(err)
		return
	}
	var oob []byte
	if len(fds) > 0 {
		oob = syscall.UnixRights(fds...)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	_, _, _ = b.conn.WriteMsgUnix(out.Bytes(), oob, nil)
}

// announce tells of a shutdown, or that it was called off.
func (b *privateBus) announce(down bool) {
	b.send(&dbus.Message{Type: dbus.TypeSignal, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldPath: dbus.MakeVariant(loginPath), dbus.FieldInterface: dbus.MakeVariant(loginInterface),
		dbus.FieldMember: dbus.MakeVariant("PrepareForShutdown"), dbus.FieldSender: dbus.MakeVariant(loginService),
	}, Body: []any{down}})
}

// released waits until nobody but the bus holds the newest lock.
func (b *privateBus) released() {
	b.t.Helper()
	b.mu.Lock()
	read, write := b.locks[len(b.locks)-2], b.locks[len(b.locks)-1]
	b.mu.Unlock()
	_ = write.Close()
	_ = read.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := read.Read(make([]byte, 1)); n != 0 || os.IsTimeout(err) {
		b.t.Errorf("the lock is still held: %v", err)
	}
}

func TestSystemBus(t *testing.T) {
	b := newPrivateBus(t)
	logind, err := systemBus(b.override)
	if err != nil || logind == nil {
		t.Fatal(logind, err)
	}
	defer logind.Close()
	release, err := logind.Inhibit(30 * time.Second) // more than is allowed at first
	if err != nil {
		t.Fatal(err)
	}
	if b.delay != 30_000_000 {
		t.Errorf("shutdowns may wait for %d µs", b.delay)
	}
	shutdowns, err := logind.Shutdowns()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []bool{true, false} {
		b.announce(want)
		if got := <-shutdowns; got != want {
			t.Errorf("announced %v, heard %v", want, got)
		}
	}
	release()
	b.released()
	_ = b.conn.Close()
	if _, open := <-shutdowns; open {
		t.Error("the bus is gone, and nobody is told")
	}
}

func TestSystemBusWithoutLogind(t *testing.T) {
	b := newPrivateBus(t)
	b.without = true
	if logind, err := systemBus(b.override); logind != nil || err != nil {
		t.Errorf("%v, %v", logind, err)
	}
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path="+filepath.Join(t.TempDir(), "none"))
	if logind, err := SystemBus(); logind != nil || err != nil {
		t.Errorf("no bus at all: %v, %v", logind, err)
	}
}

// TestLogindThatDoesNotFollow says what to do.
func TestLogindThatDoesNotFollow(t *testing.T) {
	b := newPrivateBus(t)
	b.deaf = true
	logind, err := systemBus(b.override)
	if err != nil {
		t.Fatal(err)
	}
	defer logind.Close()
	if _, err := logind.Inhibit(time.Minute); err == nil || !strings.Contains(err.Error(), "lets shutdowns wait for 5s, and 1m0s are asked for") {
		t.Errorf("%v", err)
	}
}
