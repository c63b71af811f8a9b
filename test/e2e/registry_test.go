//go:build e2e

package e2e

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	corev1 "k8s.io/api/core/v1"
	certutil "k8s.io/client-go/util/cert"

	"github.com/everynode/everynode/internal/cli/layout"
	"github.com/everynode/everynode/test/e2e/cluster"
)

// The private registry of the tests, plain and with TLS, and who may use it.
const (
	registryHost      = "10.206.0.1"
	plainRegistry     = registryHost + ":5000"
	tlsRegistry       = registryHost + ":5001"
	registryUser      = "puller"
	registryPassword  = "s3cret:with/colon"
	privateRepository = "team/app"
)

// Images of a private registry, over plain HTTP and over TLS with a CA of its own, are pulled with
// the secret of the pod or of its ServiceAccount. Without one, or with a wrong one, the pod says why.
func TestPrivateRegistry(t *testing.T) {
	c := cluster.New(t, programs(t))
	r := serveRegistry(t, c)
	digest := r.push(t, privateRepository+":1")
	r.push(t, privateRepository+":2")
	n := c.AddNode()
	r.tell(t, n, plainRegistry, fmt.Sprintf("[host.%q]\n", "http://"+plainRegistry))
	r.tell(t, n, tlsRegistry, fmt.Sprintf("[host.%q]\nca = \"ca.crt\"\n", "https://"+tlsRegistry))
	c.AwaitReady()

	pod := func(name, registry, tag, more string) {
		t.Helper()
		c.Apply(strings.ReplaceAll(onNode(n.Name, name, more, "sleep"), appImage, registry+"/"+privateRepository+tag))
	}
	secret := func(name, registry, password string) {
		t.Helper()
		c.MustKubectl("create", "secret", "docker-registry", name, "--docker-server="+registry, "--docker-username="+registryUser, "--docker-password="+password)
	}
	secret("wrong", plainRegistry, "guess")
	secret("elsewhere", "registry.invalid", registryPassword)
	refusals := map[string]struct{ more, want string }{
		"none":      {"", `(?i)401 Unauthorized|authorization failed|no basic auth credentials`},
		"wrong":     {"imagePullSecrets: [{name: wrong}]", `(?i)401 Unauthorized|authorization failed`},
		"elsewhere": {"imagePullSecrets: [{name: elsewhere}]", `(?i)401 Unauthorized|authorization failed|no basic auth credentials`},
		"early":     {"imagePullSecrets: [{name: right}]", `FailedToRetrieveImagePullSecret.*right`},
	}
	for name, r := range refusals {
		pod(name, plainRegistry, ":1", r.more)
	}
	for name, r := range refusals {
		awaitPod(t, c, name, 30*time.Second, func(pod *corev1.Pod) bool {
			return len(pod.Status.ContainerStatuses) == 1 && pod.Status.ContainerStatuses[0].State.Waiting != nil &&
				strings.Contains(pod.Status.ContainerStatuses[0].State.Waiting.Reason, "ImagePull")
		})
		out := c.MustKubectl("describe", "pod", name)
		for _, want := range []string{"ErrImagePull", `Failed to pull image "` + plainRegistry + "/" + privateRepository + `:1"`, r.want} {
			if !regexp.MustCompile(want).MatchString(out) {
				t.Errorf("no %q in: %s", want, out)
			}
		}
		if strings.Contains(out, registryPassword) {
			t.Errorf("the description of pod %s tells the password", name)
		}
	}

	secret("right", plainRegistry, registryPassword)
	running := func(pod *corev1.Pod) bool { return ready(pod) && restarts(pod) == 0 }
	awaitPod(t, c, "early", time.Minute, running) // the secret came late

	freeloaders(t, c, n)

	secret("right-tls", tlsRegistry, registryPassword)
	pod("tls", tlsRegistry, "@"+digest.String(), "imagePullSecrets: [{name: elsewhere}, {name: right-tls}]")
	awaitPod(t, c, "tls", time.Minute, running)

	c.MustKubectl("create", "serviceaccount", "puller")
	c.MustKubectl("patch", "serviceaccount", "puller", "-p", `{"imagePullSecrets":[{"name":"right"}]}`)
	pod("account", plainRegistry, ":2", "serviceAccountName: puller")
	got := awaitPod(t, c, "account", time.Minute, running)
	if id := got.Status.ContainerStatuses[0].ImageID; !strings.Contains(id, digest.String()) {
		t.Errorf("its image is %q, want digest %s", id, digest)
	}
}

// freeloaders are pods that name an image which the node has by now, without the secret that it was
// pulled with: they get it neither before nor after the agent is killed.
func freeloaders(t *testing.T, c *cluster.Cluster, n *cluster.Node) {
	t.Helper()
	for _, when := range []string{"before", "after"} {
		for _, p := range []struct{ name, policy, secret, reason string }{
			{"guest", "IfNotPresent", "", "ImagePull"}, {"guesser", "IfNotPresent", "wrong", "ImagePull"},
			{"squatter", "Never", "", "ErrImageNeverPull"}, {"owner", "Never", "right", ""},
		} {
			name := p.name + "-" + when
			more := ""
			if p.secret != "" {
				more = "imagePullSecrets: [{name: " + p.secret + "}]"
			}
			pod := strings.ReplaceAll(onNode(n.Name, name, more, "sleep"), appImage, plainRegistry+"/"+privateRepository+":1")
			c.Apply(pod + "    imagePullPolicy: " + p.policy + "\n")
			awaitPod(t, c, name, 30*time.Second, func(pod *corev1.Pod) bool {
				if p.reason == "" || len(pod.Status.ContainerStatuses) != 1 {
					return ready(pod)
				}
				waiting := pod.Status.ContainerStatuses[0].State.Waiting
				return waiting != nil && strings.Contains(waiting.Reason, p.reason)
			})
		}
		if when == "before" {
			n.Agent.Kill()
			n.StartAgent(c.JoinToken())
		}
	}
	files, err := filepath.Glob(n.Path("/var/lib/everynode/agent/pulled/*"))
	if err != nil || len(files) == 0 {
		t.Errorf("who may use which image is remembered in %v, %v", files, err)
	}
}

// privateRegistry is a registry in the switch, at one address plain and at another with TLS. All but
// what is public needs the user and the password.
type privateRegistry struct {
	ca        []byte
	public    []string // repositories whose pulls need no password
	archive   string   // the image of testapp
	transport *http.Transport
}

func serveRegistry(t *testing.T, c *cluster.Cluster, public ...string) *privateRegistry {
	t.Helper()
	archive := slices.IndexFunc(c.Programs().Images, func(path string) bool { return filepath.Base(path) == "app.tar" })
	r := &privateRegistry{public: public, archive: c.Programs().Images[archive], transport: &http.Transport{DialContext: c.Switch.Dial}}
	cert, key, err := certutil.GenerateSelfSignedCertKey("registry", []net.IP{net.ParseIP(registryHost)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	r.ca = cert
	quiet := log.New(io.Discard, "", 0)
	server := &http.Server{
		Handler: r.guard(registry.New(registry.Logger(quiet))), ReadHeaderTimeout: 5 * time.Second, ErrorLog: quiet,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
	}
	t.Cleanup(func() { _ = server.Close(); r.transport.CloseIdleConnections() })
	plain, secure := c.Switch.Listen(plainRegistry), c.Switch.Listen(tlsRegistry)
	go func() { _ = server.Serve(plain) }()
	go func() { _ = server.ServeTLS(secure, "", "") }()
	return r
}

func (r *privateRegistry) guard(images http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		open := slices.ContainsFunc(r.public, func(repository string) bool { return strings.HasPrefix(q.URL.Path, "/v2/"+repository+"/") })
		if user, password, _ := q.BasicAuth(); !open && (user != registryUser || password != registryPassword) {
			w.Header().Set("WWW-Authenticate", `Basic realm="team"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
			return
		}
		images.ServeHTTP(w, q)
	})
}

// push puts testapp into a repository, as an image with the command, and returns its digest.
func (r *privateRegistry) push(t *testing.T, repository string, command ...string) v1.Hash {
	t.Helper()
	image, err := tarball.ImageFromPath(r.archive, nil)
	if err != nil {
		t.Fatal(err)
	}
	if image, err = mutate.Config(image, v1.Config{Entrypoint: []string{"/bin/testapp"}, Cmd: command}); err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(plainRegistry+"/"+repository, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image, remote.WithTransport(r.transport), remote.WithAuth(&authn.Basic{Username: registryUser, Password: registryPassword})); err != nil {
		t.Fatalf("push %s: %v", ref, err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

// tell gives a node's containerd the settings of a registry. It reads them at each pull.
func (r *privateRegistry) tell(t *testing.T, n *cluster.Node, host, settings string) {
	t.Helper()
	dir := filepath.Join(layout.Layout{DataDir: cluster.DataDir}.Registry(), host)
	writeFile(t, n.Path(filepath.Join(dir, "ca.crt")), r.ca)
	writeFile(t, n.Path(filepath.Join(dir, "hosts.toml")), []byte(settings))
}

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
}
