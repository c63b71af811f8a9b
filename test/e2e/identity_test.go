//go:build e2e

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/everynode/everynode/test/e2e/cluster"
)

const agentFolder = cluster.DataDir + "/agent/pki/"

// logLines are the lines of a process's log that have a word in them.
func logLines(t *testing.T, p *cluster.Process, word string) []string {
	t.Helper()
	text, err := os.ReadFile(p.Log)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, word) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// onlyLine checks that the log so far has one line and no other, which says all that is wanted. What
// other parts say because the agent ends meanwhile does not count.
func onlyLine(t *testing.T, p *cluster.Process, want ...string) string {
	t.Helper()
	lines := slices.DeleteFunc(logLines(t, p, ""), func(line string) bool { return strings.Contains(line, "context canceled") })
	if len(lines) != 1 {
		t.Fatalf("%d lines, want one about %q:\n%s", len(lines), want, strings.Join(lines, "\n"))
	}
	for _, w := range want {
		if !strings.Contains(lines[0], w) {
			t.Errorf("%s\nwant something about %q", lines[0], w)
		}
	}
	return lines[0]
}

// forgetLog empties the log of an agent that has ended, for the next one.
func forgetLog(t *testing.T, n *cluster.Node) {
	t.Helper()
	if err := os.Truncate(n.Agent.Log, 0); err != nil {
		t.Fatal(err)
	}
}

// countTries is another way to the server, and how often it was gone.
func countTries(t *testing.T, c *cluster.Cluster) (url string, tries *atomic.Int32) {
	t.Helper()
	const address = "10.206.0.1:7443"
	tries = new(atomic.Int32)
	listener := c.Switch.Listen(address)
	go func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			tries.Add(1)
			go func() {
				defer func() { _ = in.Close() }()
				out, err := c.Switch.Dial(t.Context(), "tcp", strings.TrimPrefix(cluster.ServerURL, "https://"))
				if err != nil {
					return
				}
				go func() {
					_, _ = io.Copy(out, in)
					_ = out.Close()
				}()
				_, _ = io.Copy(in, out)
			}()
		}
	}()
	return "https://" + address, tries
}

func awaitTries(t *testing.T, tries *atomic.Int32, n int32) {
	t.Helper()
	until := tries.Load() + n
	cluster.Await(t, fmt.Sprintf("%d more tries", n), 30*time.Second, func(context.Context) error {
		if got := tries.Load(); got < until {
			return fmt.Errorf("%d to come", until-got)
		}
		return nil
	})
}

// An agent whose clock is off says so once, however often it tries, and works as soon as the clock is
// set: a new one as well as one whose certificate is not valid by its clock.
func TestWrongClock(t *testing.T) {
	c := cluster.New(t, programs(t))
	url, tries := countTries(t, c)
	n := c.AddMachine()
	n.StartContainerd()
	const year = 365 * 24 * time.Hour
	for i, clock := range []struct {
		ahead time.Duration
		says  string
	}{{-time.Hour, "this machine's clock is 60m behind"}, {3 * year, "this machine's clock is 3y"}, {-20 * year, "this machine's clock is 20y behind"}} {
		n.Clock = clock.ahead
		n.StartAgent(c.JoinToken(), "--server", url, "-v", "0")
		awaitTries(t, tries, 5) // longer than requests wait for an identity
		onlyLine(t, n.Agent, clock.says, "set the clock")
		if err := n.Agent.SetClock(0); err != nil {
			t.Fatal(err)
		}
		pod := fmt.Sprintf("after-%d", i)
		c.AwaitReady()
		c.Apply(onNode(n.Name, pod, "", "sleep"))
		awaitPod(t, c, pod, time.Minute, ready)
		onlyLine(t, n.Agent, clock.says)
		n.Agent.Kill()
		forgetLog(t, n)
	}
}

// A node that was off until its certificate had expired joins again with its token, and its pods
// notice nothing; without a good token it says in one line what it lacks.
func TestExpiredCertificate(t *testing.T) {
	c := cluster.New(t, programs(t))
	n := c.AddNode()
	c.AwaitReady()
	c.Apply(daemonSet("web", "serve", "8080"))
	before := awaitOnEach(t, c, "web", time.Minute)

	n.Agent.Kill()
	forgetLog(t, n)
	certify(t, c, n, time.Now().Add(-24*time.Hour))
	good := c.JoinToken()
	n.StartAgent(good[:len(good)-len("0123456789abcdef\n")]+strings.Repeat("x", 16), "-v", "0")
	awaitEnd(t, n)
	onlyLine(t, n.Agent, "this node's certificate expired on "+time.Now().Add(-24*time.Hour).UTC().Format(time.DateOnly), "does not accept join token", "everynode token create")
	forgetLog(t, n)

	n.StartAgent(good)
	c.Apply(onNode(n.Name, "later", "", "sleep"))
	awaitPod(t, c, "later", time.Minute, ready)
	unharmed(t, c, "web", before)

	// It expires while the agent runs, and no server is there to renew it.
	n.Agent.Kill()
	forgetLog(t, n)
	c.Server.Kill()
	expires := time.Now().Add(5 * time.Second)
	certify(t, c, n, expires)
	n.StartAgent(good, "-v", "0")
	cluster.Await(t, "the certificate expires", time.Minute, func(context.Context) error {
		if left := time.Until(expires); left > 0 {
			return fmt.Errorf("in %v", left)
		}
		return nil
	})
	c.StartServer()
	c.AwaitServer()
	c.Apply(onNode(n.Name, "last", "", "sleep"))
	awaitPod(t, c, "last", time.Minute, ready)
	if said := logLines(t, n.Agent, "certificate has expired"); len(said) != 1 || !strings.Contains(said[0], "joining again") {
		t.Errorf("of the certificate it says %q in:\n%s", said, strings.Join(logLines(t, n.Agent, ""), "\n"))
	}
	unharmed(t, c, "web", before)
}

// awaitEnd waits until the node's agent has given up.
func awaitEnd(t *testing.T, n *cluster.Node) {
	t.Helper()
	select {
	case <-n.Agent.Done():
	case <-time.After(time.Minute):
		t.Fatalf("the agent goes on:\n%s", strings.Join(logLines(t, n.Agent, ""), "\n"))
	}
}

// certify gives a node's key another certificate of the server's CA.
func certify(t *testing.T, c *cluster.Cluster, n *cluster.Node, until time.Time) {
	t.Helper()
	file, ca := n.Path(agentFolder+"client.pem"), c.Switch.Path(filepath.Join(cluster.DataDir, "pki"))
	own, err := tls.LoadX509KeyPair(file, file)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := tls.LoadX509KeyPair(filepath.Join(ca, "ca.crt"), filepath.Join(ca, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	template := *own.Leaf
	template.NotBefore, template.NotAfter = until.Add(-365*24*time.Hour), until
	certificate, err := x509.CreateCertificate(rand.Reader, &template, authority.Leaf, own.PrivateKey.(*ecdsa.PrivateKey).Public(), authority.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(own.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})...)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}
