package routes

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// chunkSize is how many ranges one ConfigMap holds at most: some 10 KiB of data.
const chunkSize = 256

// table holds the wanted routes, by chunk. It is pure: no clock, client or goroutine.
type table struct {
	cluster netip.Prefix
	// nodes is what each node published last; it is what a change or a removal takes back.
	nodes map[string]route
	// claims are the nodes of each range, sorted by name. There is more than one only when
	// somebody set a Node's podCIDR by hand; the first one is published then.
	claims map[netip.Prefix][]string
	chunks map[int]map[string]string
}

// route is one node's range and address.
type route struct {
	ranged netip.Prefix
	via    netip.Addr
}

func newTable(cluster netip.Prefix) *table {
	return &table{
		cluster: cluster.Masked(),
		nodes:   map[string]route{},
		claims:  map[netip.Prefix][]string{},
		chunks:  map[int]map[string]string{},
	}
}

// set takes a Node in and returns the chunks whose contents changed.
func (t *table) set(n *corev1.Node) []int {
	r, ok := t.routeOf(n)
	if old, had := t.nodes[n.Name]; had && ok && old == r {
		return nil
	}
	changed := t.remove(n.Name)
	if !ok {
		return changed
	}
	t.nodes[n.Name] = r
	names := t.claims[r.ranged]
	i, _ := slices.BinarySearch(names, n.Name)
	t.claims[r.ranged] = slices.Insert(names, i, n.Name)
	return t.publish(r.ranged, changed)
}

// remove takes a Node out and returns the chunks whose contents changed.
func (t *table) remove(name string) []int {
	r, ok := t.nodes[name]
	if !ok {
		return nil
	}
	delete(t.nodes, name)
	names := slices.DeleteFunc(t.claims[r.ranged], func(n string) bool { return n == name })
	if len(names) == 0 {
		delete(t.claims, r.ranged)
	} else {
		t.claims[r.ranged] = names
	}
	return t.publish(r.ranged, nil)
}

// publish brings the key of one range up to date, and adds its chunk to changed if that made a difference.
func (t *table) publish(ranged netip.Prefix, changed []int) []int {
	index, key := t.chunkOf(ranged), keyOf(ranged)
	names := t.claims[ranged]
	had, published := t.chunks[index][key]
	if len(names) == 0 {
		if !published {
			return changed
		}
		delete(t.chunks[index], key)
		if len(t.chunks[index]) == 0 {
			delete(t.chunks, index)
		}
	} else {
		via := t.nodes[names[0]].via.String()
		if published && had == via {
			return changed
		}
		if t.chunks[index] == nil {
			t.chunks[index] = map[string]string{}
		}
		t.chunks[index][key] = via
	}
	if !slices.Contains(changed, index) {
		changed = append(changed, index)
	}
	return changed
}

// routeOf reads a Node: its first range inside the cluster's, and its first InternalIP of the same
// family. It is false while the node lacks either.
func (t *table) routeOf(n *corev1.Node) (route, bool) {
	ranged, ok := t.rangeOf(n)
	if !ok {
		return route{}, false
	}
	for _, a := range n.Status.Addresses {
		if a.Type != corev1.NodeInternalIP {
			continue
		}
		if ip, err := netip.ParseAddr(a.Address); err == nil && ip.Is4() == ranged.Addr().Is4() {
			return route{ranged, ip}, true
		}
	}
	return route{}, false
}

func (t *table) rangeOf(n *corev1.Node) (netip.Prefix, bool) {
	cidrs := n.Spec.PodCIDRs
	if len(cidrs) == 0 && n.Spec.PodCIDR != "" {
		cidrs = []string{n.Spec.PodCIDR}
	}
	for _, c := range cidrs {
		p, err := netip.ParsePrefix(c)
		if err == nil && p.Bits() >= t.cluster.Bits() && t.cluster.Contains(p.Addr()) {
			return p.Masked(), true
		}
	}
	return netip.Prefix{}, false
}

// chunkOf is the range's number among the cluster's ranges of its size, divided by chunkSize.
func (t *table) chunkOf(p netip.Prefix) int {
	return int((offset(p.Addr(), p.Bits()) - offset(t.cluster.Addr(), p.Bits())) / chunkSize)
}

// offset is the address without its host part, as a number. A long IPv6 range loses its upper bits,
// which two ranges of one cluster have in common: their difference is right all the same.
func offset(a netip.Addr, bits int) uint64 {
	if a.Is4() {
		b := a.As4()
		return uint64(binary.BigEndian.Uint32(b[:])) >> (32 - bits)
	}
	b := a.As16()
	high, low := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	if bits <= 64 {
		return high >> (64 - bits)
	}
	return high<<(bits-64) | low>>(128-bits)
}

// keyOf is the range as a ConfigMap key, which may hold no slash. An IPv6 range's colons are not
// allowed either.
func keyOf(p netip.Prefix) string {
	return strings.NewReplacer("/", "-", ":", "_").Replace(p.String())
}

// nameOf is the name of a chunk's ConfigMap.
func nameOf(chunk int) string { return fmt.Sprintf("%s%03d", namePrefix, chunk) }
