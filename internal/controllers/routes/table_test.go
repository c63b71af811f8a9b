package routes

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"
)

func node(name, cidr string, ips ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if cidr != "" {
		n.Spec.PodCIDR, n.Spec.PodCIDRs = cidr, []string{cidr}
	}
	n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeHostName, Address: name}}
	for _, ip := range ips {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
	}
	return n
}

func TestTableTellsAStory(t *testing.T) {
	tab := newTable(netip.MustParsePrefix("10.42.0.0/15"))
	remove := func(name string) func() []int { return func() []int { return tab.remove(name) } }
	set := func(n *corev1.Node) func() []int { return func() []int { return tab.set(n) } }
	type chunks = map[int]map[string]string
	for _, step := range []struct {
		what    string
		do      func() []int
		changed []int
		want    chunks
	}{
		{"a node without a range", set(node("a", "", "192.0.2.1")), nil, chunks{}},
		{"a node without an address", set(node("a", "10.42.0.0/24")), nil, chunks{}},
		{"both", set(node("a", "10.42.0.0/24", "192.0.2.1")), []int{0}, chunks{0: {"10.42.0.0-24": "192.0.2.1"}}},
		{"a heartbeat", set(node("a", "10.42.0.0/24", "192.0.2.1")), nil, chunks{0: {"10.42.0.0-24": "192.0.2.1"}}},
		{"the last range of the first chunk", set(node("b", "10.42.255.0/24", "192.0.2.2")), []int{0},
			chunks{0: {"10.42.0.0-24": "192.0.2.1", "10.42.255.0-24": "192.0.2.2"}}},
		{"the first of the second", set(node("c", "10.43.0.0/24", "192.0.2.3")), []int{1},
			chunks{0: {"10.42.0.0-24": "192.0.2.1", "10.42.255.0-24": "192.0.2.2"}, 1: {"10.43.0.0-24": "192.0.2.3"}}},
		{"a new address", set(node("c", "10.43.0.0/24", "2001:db8::3", "192.0.2.33")), []int{1},
			chunks{0: {"10.42.0.0-24": "192.0.2.1", "10.42.255.0-24": "192.0.2.2"}, 1: {"10.43.0.0-24": "192.0.2.33"}}},
		{"a second claim, of a later name", set(node("d", "10.43.0.0/24", "192.0.2.4")), nil,
			chunks{0: {"10.42.0.0-24": "192.0.2.1", "10.42.255.0-24": "192.0.2.2"}, 1: {"10.43.0.0-24": "192.0.2.33"}}},
		{"the first claim goes", remove("c"), []int{1},
			chunks{0: {"10.42.0.0-24": "192.0.2.1", "10.42.255.0-24": "192.0.2.2"}, 1: {"10.43.0.0-24": "192.0.2.4"}}},
		{"a move to another chunk", set(node("d", "10.42.7.0/24", "192.0.2.4")), []int{1, 0},
			chunks{0: {"10.42.0.0-24": "192.0.2.1", "10.42.255.0-24": "192.0.2.2", "10.42.7.0-24": "192.0.2.4"}}},
		{"a range of another cluster", set(node("d", "10.44.0.0/24", "192.0.2.4")), []int{0},
			chunks{0: {"10.42.0.0-24": "192.0.2.1", "10.42.255.0-24": "192.0.2.2"}}},
		{"nonsense", set(node("d", "not a range", "192.0.2.4")), nil,
			chunks{0: {"10.42.0.0-24": "192.0.2.1", "10.42.255.0-24": "192.0.2.2"}}},
		{"an unknown node goes", remove("z"), nil,
			chunks{0: {"10.42.0.0-24": "192.0.2.1", "10.42.255.0-24": "192.0.2.2"}}},
		{"the others go", func() []int { return append(tab.remove("a"), tab.remove("b")...) }, []int{0, 0}, chunks{}},
	} {
		if changed := step.do(); !slices.Equal(changed, step.changed) {
			t.Errorf("%s: chunks %v changed, want %v", step.what, changed, step.changed)
		}
		if d := cmp.Diff(step.want, tab.chunks); d != "" {
			t.Errorf("%s: (-want +got)\n%s", step.what, d)
		}
	}
}

func TestTableOfIPv6(t *testing.T) {
	tab := newTable(netip.MustParsePrefix("2001:db8:42::/56"))
	tab.set(node("a", "2001:db8:42:0:1::/80", "192.0.2.1", "2001:db8::1"))
	tab.set(node("b", "2001:db8:42:1::/64", "2001:db8::2"))
	want := map[int]map[string]string{0: {
		"2001_db8_42_0_1__-80": "2001:db8::1",
		"2001_db8_42_1__-64":   "2001:db8::2",
	}}
	if d := cmp.Diff(want, tab.chunks); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// A dumb second implementation: what the table must hold, from all nodes at once.
func oracle(tab *table, nodes map[string]*corev1.Node) map[int]map[string]string {
	want := map[int]map[string]string{}
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(nodes))) {
		r, ok := tab.routeOf(nodes[name])
		if !ok {
			continue
		}
		chunk := int(r.ranged.Addr().As4()[2])/chunkSize + int(r.ranged.Addr().As4()[1]-42)
		if want[chunk] == nil {
			want[chunk] = map[string]string{}
		}
		want[chunk][keyOf(r.ranged)] = r.via.String() // the first name comes last, and stays
	}
	return want
}

func TestTableEqualsOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tab := newTable(netip.MustParsePrefix("10.42.0.0/15"))
		nodes := map[string]*corev1.Node{}
		for range rapid.IntRange(1, 40).Draw(t, "events") {
			name := fmt.Sprintf("n%d", rapid.IntRange(0, 5).Draw(t, "name"))
			before := fmt.Sprint(tab.chunks)
			var changed []int
			if rapid.Bool().Draw(t, "remove") {
				delete(nodes, name)
				changed = tab.remove(name)
			} else {
				cidr := rapid.SampledFrom([]string{"", "10.42.0.0/24", "10.42.1.0/24", "10.43.9.0/24", "10.99.0.0/24"}).Draw(t, "cidr")
				n := node(name, cidr, rapid.SampledFrom([]string{"192.0.2.1", "192.0.2.2", "2001:db8::1"}).Draw(t, "ip"))
				nodes[name] = n
				changed = tab.set(n)
			}
			if d := cmp.Diff(oracle(tab, nodes), tab.chunks); d != "" {
				t.Fatalf("(-want +got)\n%s", d)
			}
			if fmt.Sprint(tab.chunks) != before && len(changed) == 0 {
				t.Fatalf("contents changed from %s to %v, but no chunk was reported", before, tab.chunks)
			}
		}
	})
}

func TestNames(t *testing.T) {
	for name, want := range map[string]int{"node-routes-000": 0, "node-routes-255": 255, "node-routes-1000": 1000} {
		if chunk, ok := chunkNamed(name); !ok || chunk != want || nameOf(chunk) != name {
			t.Errorf("chunkNamed(%q) = %d, %v; want %d", name, chunk, ok, want)
		}
	}
	for _, name := range []string{"node-routes-1", "node-routes-", "node-routes-+01", "node-routes--01", "kube-root-ca.crt"} {
		if chunk, ok := chunkNamed(name); ok {
			t.Errorf("chunkNamed(%q) = %d, want none", name, chunk)
		}
	}
}

func BenchmarkNodeEvent(b *testing.B) {
	for _, size := range []int{1_000, 20_000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			tab := newTable(netip.MustParsePrefix("10.0.0.0/8"))
			for i := range size {
				tab.set(node(fmt.Sprint(i), fmt.Sprintf("10.%d.%d.0/24", i/256, i%256), "192.0.2.1"))
			}
			a, c := node("7", "10.0.7.0/24", "192.0.2.8"), node("7", "10.0.7.0/24", "192.0.2.9")
			for b.Loop() {
				tab.set(a)
				tab.set(c)
			}
		})
	}
}
