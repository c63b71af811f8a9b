package network

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var namespaces atomic.Int32

// inNamespace gives the test a network namespace of its own: a machine with eth0 at 192.0.2.1/24,
// whose other end is in the same namespace but has no address. The test's thread stays in it; what
// the test starts must be started by it, and goroutines that touch the kernel must not be. The
// namespace goes with its last process.
func inNamespace(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces: run it as root")
	}
	// Never unlocked: the runtime then ends the thread with the test, and the namespace with it.
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatalf("new network namespace: %v", err)
	}
	n := namespaces.Add(1)
	for _, command := range []string{
		"ip link set lo up",
		fmt.Sprintf("ip link add eth0 type veth peer name peer%d", n),
		"ip addr add 192.0.2.1/24 dev eth0",
		"ip link set eth0 up mtu 1400",
		fmt.Sprintf("ip link set peer%d up", n),
		"ip route add default via 192.0.2.254",
	} {
		sh(t, command)
	}
}

// sh runs a command in the namespace of this thread.
func sh(t *testing.T, command string) string {
	t.Helper()
	out, err := exec.Command("sh", "-c", command).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", command, err, out)
	}
	return string(out)
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestBridge(t *testing.T) {
	inNamespace(t)
	for range 2 { // the second time nothing is to be done
		if err := ensureBridge(prefix("10.42.3.0/24"), mtuTo(net.ParseIP("192.0.2.1"))); err != nil {
			t.Fatal(err)
		}
	}
	link, err := netlink.LinkByName(bridgeName)
	if err != nil {
		t.Fatal(err)
	}
	if link.Attrs().MTU != 1400 || link.Attrs().HardwareAddr.String() != "0a:58:0a:2a:03:01" {
		t.Errorf("bridge %+v", link.Attrs())
	}
	sh(t, "ping -c1 -W1 10.42.3.1 >/dev/null || true")
	if out := sh(t, "ip -4 -o addr show dev everynode0"); !strings.Contains(out, "10.42.3.1/24") {
		t.Errorf("addresses: %s", out)
	}
	if err := ensureBridge(prefix("10.42.9.0/24"), 1400); err != nil {
		t.Fatal(err)
	}
	if out := sh(t, "ip -4 -o addr show dev everynode0"); strings.Contains(out, "10.42.3.1") || !strings.Contains(out, "10.42.9.1/24") {
		t.Errorf("addresses after the range changed: %s", out)
	}
}

func TestBridgeNameTaken(t *testing.T) {
	inNamespace(t)
	sh(t, "ip link add everynode0 type veth peer name other0")
	if err := ensureBridge(prefix("10.42.3.0/24"), 1500); err == nil || !strings.Contains(err.Error(), "remove or rename it") {
		t.Errorf("error %v, want one that says what to do", err)
	}
}

func TestForwarding(t *testing.T) {
	inNamespace(t)
	sh(t, "sysctl -qw net.ipv4.ip_forward=0")
	if err := ensureForwarding(); err != nil {
		t.Fatal(err)
	}
	if out := sh(t, "sysctl -n net.ipv4.ip_forward"); strings.TrimSpace(out) != "1" {
		t.Errorf("ip_forward %q", out)
	}
}

func TestFirewall(t *testing.T) {
	inNamespace(t)
	sh(t, "iptables -t nat -A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE; iptables -P FORWARD DROP")
	before := rulesNow(t)
	f := firewall{pods: prefix("10.42.3.0/24"), cluster: prefix("10.42.0.0/16"), service: netip.MustParseAddr("10.43.0.1"), apiPort: "6443"}
	for range 2 {
		if err := f.ensure(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	rules := rulesNow(t)
	for _, want := range []string{
		"-A POSTROUTING -j EVERYNODE-POSTROUTING",
		"-A EVERYNODE-POSTROUTING -s 10.42.3.0/24 ! -d 10.42.0.0/16 -j MASQUERADE",
		"-A FORWARD -j EVERYNODE-FORWARD",
		"-A EVERYNODE-FORWARD -s 10.42.0.0/16 -j ACCEPT",
		"-A INPUT -j EVERYNODE-INPUT",
		"-A EVERYNODE-INPUT -d 10.43.0.1/32 -i everynode0 -p tcp -j ACCEPT",
		"-A EVERYNODE-INPUT -d 10.42.3.1/32 -i everynode0 -p tcp -m tcp --dport 6443 -j ACCEPT",
	} {
		if n := strings.Count(rules, want+"\n"); n != 1 {
			t.Errorf("%d times %q in\n%s", n, want, rules)
		}
	}
	// A firewall service that was reloaded, and another range.
	sh(t, "iptables -t nat -D POSTROUTING -j EVERYNODE-POSTROUTING")
	f.pods = prefix("10.42.4.0/24")
	if err := f.ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rules := rulesNow(t); strings.Contains(rules, "10.42.3.0") || !strings.Contains(rules, "-A POSTROUTING -j EVERYNODE-POSTROUTING\n") {
		t.Errorf("after a change:\n%s", rules)
	}
	for range 2 {
		if err := removeFirewall(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if after := rulesNow(t); after != before {
		t.Errorf("left behind, or taken along:\n%s\nbefore:\n%s", after, before)
	}
}

// rulesNow is all rules, without counters and comments.
func rulesNow(t *testing.T) string {
	t.Helper()
	return sh(t, "for t in nat filter; do iptables-save -t $t; done | grep -v '^#' | sed 's/ \\[.*\\]//'")
}

func TestRemovePortmap(t *testing.T) {
	inNamespace(t)
	portmap := `*nat
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-HOSTPORT-MASQ - [0:0]
:CNI-HOSTPORT-SETMARK - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -j CNI-HOSTPORT-MASQ
-A CNI-HOSTPORT-SETMARK -j MARK --set-xmark 0x2000/0x2000
-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
%sCOMMIT
`
	inUse := ":CNI-DN-abc - [0:0]\n-A CNI-HOSTPORT-DNAT -p tcp -m multiport --dports 80 -j CNI-DN-abc\n-A CNI-DN-abc -p tcp --dport 80 -j DNAT --to-destination 10.4.0.2:80\n"
	if err := iptables(t.Context(), fmt.Sprintf(portmap, inUse), "iptables-restore", "--noflush", "-w"); err != nil {
		t.Fatal(err)
	}
	if err := removeFirewall(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(rulesNow(t), "-A CNI-DN-abc") {
		t.Error("rules of a container that runs were removed")
	}
	sh(t, "iptables -t nat -F; iptables -t nat -X")
	if err := iptables(t.Context(), fmt.Sprintf(portmap, ""), "iptables-restore", "--noflush", "-w"); err != nil {
		t.Fatal(err)
	}
	if err := removeFirewall(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rules := rulesNow(t); strings.Contains(rules, "CNI-") {
		t.Errorf("left behind:\n%s", rules)
	}
}

func TestRoutes(t *testing.T) {
	inNamespace(t)
	sh(t, "ip route add 10.42.200.0/24 via 192.0.2.200 proto 231") // of a node that left while no agent ran
	sh(t, "ip route add 10.42.201.0/24 via 192.0.2.201")           // somebody else's
	table := newRouteTable(netip.MustParseAddr("192.0.2.1"))
	ctx := t.Context()
	expect := func(step, want string) {
		t.Helper()
		out := sh(t, "ip route show proto 231 | awk '{print $1, $3, $5}' | sort")
		if got := strings.ReplaceAll(strings.TrimSpace(out), "\n", "; "); got != want {
			t.Errorf("%s: routes %q, want %q", step, got, want)
		}
	}
	table.resync(ctx)
	expect("nothing is known yet", "10.42.200.0/24 192.0.2.200 eth0")
	table.replace(ctx, map[string]map[string]string{
		"node-routes-000": {"10.42.1.0-24": "192.0.2.1", "10.42.2.0-24": "192.0.2.2"},
		"node-routes-001": {"10.43.0.0-24": "192.0.2.3"},
	})
	expect("the first list", "10.42.2.0/24 192.0.2.2 eth0; 10.43.0.0/24 192.0.2.3 eth0")
	table.set(ctx, "node-routes-000", map[string]string{"10.42.2.0-24": "192.0.2.4", "10.42.5.0-24": "192.0.2.5", "nonsense": "x"})
	expect("a node moved, one came, one line is broken", "10.42.2.0/24 192.0.2.4 eth0; 10.42.5.0/24 192.0.2.5 eth0; 10.43.0.0/24 192.0.2.3 eth0")
	table.replace(ctx, map[string]map[string]string{"node-routes-000": {"10.42.2.0-24": "192.0.2.4"}})
	expect("a gap in the watch", "10.42.2.0/24 192.0.2.4 eth0")
	sh(t, "ip link set eth0 down; ip link set eth0 up; ip route add default via 192.0.2.254")
	expect("the link was down", "")
	table.resync(ctx)
	expect("looked again", "10.42.2.0/24 192.0.2.4 eth0")
	if out := sh(t, "ip route show 10.42.2.0/24"); !strings.Contains(out, "proto 231") {
		t.Errorf("route %s carries no mark", out)
	}

	table.set(ctx, "node-routes-000", map[string]string{"10.42.2.0-24": "192.0.2.4", "10.42.9.0-24": "198.51.100.7"})
	expect("a node behind a router", "10.42.2.0/24 192.0.2.4 eth0")
	if why := table.unreachable(); !strings.Contains(why, "10.42.9.0/24") || !strings.Contains(why, "192.0.2.254") {
		t.Errorf("reason %q, want range and router", why)
	}
	table.set(ctx, "node-routes-000", nil)
	expect("all gone", "")
	if why := table.unreachable(); why != "" {
		t.Errorf("reason %q after the node left", why)
	}
	sh(t, "ip route add 10.42.201.0/24 via 192.0.2.201 2>/dev/null || true")
	table.set(ctx, "node-routes-000", map[string]string{"10.42.2.0-24": "192.0.2.4"})
	for range 2 {
		if err := removeRoutes(); err != nil {
			t.Fatal(err)
		}
	}
	expect("cleaned up", "")
	if out := sh(t, "ip route show"); !strings.Contains(out, "10.42.201.0/24") || !strings.Contains(out, "default") {
		t.Errorf("others' routes are gone too: %s", out)
	}
}

func TestServiceAddress(t *testing.T) {
	inNamespace(t)
	for _, ip := range []string{"10.43.0.1", "10.43.0.1", "10.99.0.1"} {
		if err := ensureServiceAddress(netip.MustParseAddr(ip)); err != nil {
			t.Fatal(err)
		}
	}
	out := sh(t, "ip -4 -o addr show dev lo")
	if strings.Contains(out, "10.43.0.1") || strings.Count(out, "10.99.0.1/32") != 1 || !strings.Contains(out, "127.0.0.1") {
		t.Errorf("addresses of lo: %s", out)
	}
	for range 2 {
		if err := removeServiceAddresses(netip.Addr{}); err != nil {
			t.Fatal(err)
		}
	}
	if out := sh(t, "ip -4 -o addr show dev lo"); strings.Contains(out, "10.99") || !strings.Contains(out, "127.0.0.1") {
		t.Errorf("addresses of lo after cleaning up: %s", out)
	}
}

func TestCleanup(t *testing.T) {
	inNamespace(t)
	state := func() string {
		return rulesNow(t) + sh(t, "ip -4 -o addr show | awk '{print $2,$4}'; ip route show; ip -o link show | awk '{print $2}'")
	}
	// iptables makes its tables when first used.
	sh(t, "iptables -t nat -L >/dev/null; iptables -L >/dev/null")
	before, dir := state(), t.TempDir()
	if err := ensureBridge(prefix("10.42.3.0/24"), 1500); err != nil {
		t.Fatal(err)
	}
	f := firewall{pods: prefix("10.42.3.0/24"), cluster: prefix("10.42.0.0/16"), service: netip.MustParseAddr("10.43.0.1"), apiPort: "6443"}
	if err := f.ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := ensureServiceAddress(f.service); err != nil {
		t.Fatal(err)
	}
	if err := addRoute(prefix("10.42.7.0/24"), netip.MustParseAddr("192.0.2.7")); err != nil {
		t.Fatal(err)
	}
	if _, err := writeConf(dir, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Cleanup(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
	}
	if after := state(); after != before {
		t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("left in the CNI folder: %v", entries)
	}
}
