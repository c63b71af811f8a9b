package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"
)

// childEnv makes this test binary be the machine of TestNetwork: the network works with goroutines,
// so a whole process has to live in the namespace.
const childEnv = "EVERYNODE_TEST_MACHINE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := machine(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestNetwork(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// machine is the life of a node's network, in a namespace of its own.
func machine(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if out, err := exec.Command("sh", "-ec", `ip link set lo up
		ip link add eth0 type veth peer name peer0; ip addr add 192.0.2.1/24 dev eth0; ip link set peer0 up; ip link set eth0 up mtu 1400
		sysctl -qw net.ipv4.ip_forward=0`).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go greet(server, "given")
	port := server.Addr().(*net.TCPAddr).Port
	client := fake.NewClientset(&corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: routesNamespace, Name: "node-routes-000", Annotations: map[string]string{clusterCIDRAnnotation: "10.40.0.0/13"}},
		Data:       map[string]string{"10.42.0.0-24": "192.0.2.1", "10.42.1.0-24": "192.0.2.2"},
	})
	changed := make(chan struct{}, 16)
	n, err := New(Options{
		NodeIP: net.ParseIP("192.0.2.1"), Servers: NewServers(fmt.Sprintf("https://127.0.0.1:%d", port)),
		CNIConfDir: filepath.Join(dir, "net.d"), IPAMDir: filepath.Join(dir, "ipam"), ClusterCIDR: "10.42.0.0/16", APIServiceIP: "10.43.0.1",
		Client: client, Recorder: &record.FakeRecorder{}, Changed: func() { changed <- struct{}{} },
	})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- n.Run(running) }()

	if err := n.Ready(); !errors.Is(err, errNoRange) {
		return fmt.Errorf("ready without a pod range: %w", err)
	}
	if err := await(ctx, "the API's ClusterIP before there is a pod range", says("10.43.0.1:443", "given")); err != nil {
		return err
	}
	n.SetNode(&corev1.Node{Spec: corev1.NodeSpec{PodCIDR: "10.42.0.0/24"}})
	select {
	case <-changed:
	case <-ctx.Done():
		return errors.New("readiness was never told")
	}
	if err := n.Ready(); err != nil {
		return fmt.Errorf("not ready with a pod range: %w", err)
	}
	conf, err := os.ReadFile(filepath.Join(dir, "net.d", confName))
	if err != nil || !strings.Contains(string(conf), "10.42.0.0/24") || !strings.Contains(string(conf), `"mtu": 1400`) {
		return fmt.Errorf("CNI configuration %s: %w", conf, err)
	}
	for what, check := range map[string]func() error{
		"the bridge":                        prints("ip -4 -o addr show dev everynode0", "10.42.0.1/24"),
		"forwarding":                        prints("sysctl -n net.ipv4.ip_forward", "1"),
		"the published cluster range":       prints("iptables-save -t nat", "! -d 10.40.0.0/13 -j MASQUERADE"),
		"a route to the other node":         prints("ip route", "10.42.1.0/24 via 192.0.2.2 dev eth0 proto 231"),
		"a server on loopback for the pods": says(fmt.Sprintf("10.42.0.1:%d", port), "given"),
	} {
		if err := await(ctx, what, check); err != nil {
			return err
		}
	}

	// Other servers are published, another ClusterIP, another range.
	live, err := net.Listen("tcp", "192.0.2.1:0")
	if err != nil {
		return err
	}
	go greet(live, "live")
	_, err = client.DiscoveryV1().EndpointSlices("default").Create(ctx, &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, AddressType: discoveryv1.AddressTypeIPv4,
		Ports:     []discoveryv1.EndpointPort{{Name: ptr.To("https"), Port: ptr.To(int32(live.Addr().(*net.TCPAddr).Port))}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if err := await(ctx, "the live server", says("10.43.0.1:443", "live")); err != nil {
		return err
	}
	n.SetAPIService(&corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: "10.99.0.1"}})
	n.SetNode(&corev1.Node{Spec: corev1.NodeSpec{PodCIDR: "10.42.7.0/24"}})
	for what, check := range map[string]func() error{
		"another ClusterIP": says("10.99.0.1:443", "live"),
		"another range":     says(fmt.Sprintf("10.42.7.1:%d", port), "live"),
		"its masquerade":    prints("iptables-save -t nat", "-s 10.42.7.0/24 ! -d 10.40.0.0/13 -j MASQUERADE"),
	} {
		if err := await(ctx, what, check); err != nil {
			return err
		}
	}

	// Stopping leaves everything for the pods; a second start finds it; Cleanup needs no agent.
	stop()
	select {
	case err := <-ended:
		if err != nil {
			return err
		}
	case <-time.After(5 * time.Second):
		return errors.New("Run goes on after its context ended")
	}
	if err := prints("ip route", "proto 231")(); err != nil {
		return fmt.Errorf("after stopping: %w", err)
	}
	if err := Cleanup(ctx, filepath.Join(dir, "net.d")); err != nil {
		return err
	}
	out, err := exec.Command("sh", "-c", "ip -o addr; ip route; iptables-save").CombinedOutput()
	if err != nil || strings.Contains(string(out), "everynode") || strings.Contains(string(out), "EVERYNODE") || strings.Contains(string(out), "231") {
		return fmt.Errorf("left behind: %s: %w", out, err)
	}
	return nil
}

// greet answers every connection with a word.
func greet(l net.Listener, word string) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		fmt.Fprint(conn, word)
		_ = conn.Close()
	}
}

func says(address, word string) func() error {
	return func() error {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		got := make([]byte, len(word))
		if _, err := conn.Read(got); err != nil || string(got) != word {
			return fmt.Errorf("%s says %q (%w)", address, got, err)
		}
		return nil
	}
}

func prints(command, want string) func() error {
	return func() error {
		out, err := exec.Command("sh", "-c", command).CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			return fmt.Errorf("%s prints %s, want %q: %w", command, out, want, err)
		}
		return nil
	}
}

func await(ctx context.Context, what string, check func() error) error {
	for {
		err := check()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
