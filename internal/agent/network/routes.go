package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
)

const (
	// routesNamespace and routesPrefix are where the server publishes which node has which range.
	routesNamespace = "everynode-system"
	routesPrefix    = "node-routes-"
	// routeProtocol marks our routes in the kernel's table (`ip route show proto 231`), so that those
	// of nodes that left while no agent was running are found and removed.
	routeProtocol netlink.RouteProtocol = 231
)

// clusterCIDRAnnotation on a routes ConfigMap says which range all pods are in.
const clusterCIDRAnnotation = "everynode.io/cluster-cidr"

// routeTable keeps the kernel's routes to the other nodes' pods in step with what is published. It
// remembers each chunk in compact form, so that a change costs what has changed.
type routeTable struct {
	self netip.Addr // this node's address: its own range is not routed

	mu     sync.Mutex
	chunks map[string]map[netip.Prefix]netip.Addr
	// failed are routes that could not be made yet, with the reason.
	failed map[netip.Prefix]string
	synced bool
}

func newRouteTable(self netip.Addr) *routeTable {
	return &routeTable{self: self, chunks: map[string]map[netip.Prefix]netip.Addr{}, failed: map[netip.Prefix]string{}}
}

// set takes in the content of one chunk and changes the routes that differ.
func (t *routeTable) set(ctx context.Context, chunk string, data map[string]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.setLocked(ctx, chunk, data)
}

func (t *routeTable) setLocked(ctx context.Context, chunk string, data map[string]string) {
	want, err := parseRoutes(data)
	if err != nil {
		klog.FromContext(ctx).Error(err, "Some of the published routes cannot be read", "configMap", chunk)
	}
	have := t.chunks[chunk]
	for cidr, via := range have {
		if want[cidr] != via {
			t.remove(ctx, cidr, via)
		}
	}
	for cidr, via := range want {
		if have[cidr] != via {
			t.add(ctx, cidr, via)
		}
	}
	if len(want) == 0 {
		delete(t.chunks, chunk)
		return
	}
	t.chunks[chunk] = want
}

// replace takes in all chunks at once and removes routes of ours that are in none of them.
func (t *routeTable) replace(ctx context.Context, all map[string]map[string]string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for chunk := range t.chunks {
		if _, ok := all[chunk]; !ok {
			t.setLocked(ctx, chunk, nil)
		}
	}
	for chunk, data := range all {
		t.setLocked(ctx, chunk, data)
	}
	t.synced = true
	t.resyncLocked(ctx)
}

// resync compares with the kernel: interfaces that went down took their routes along, and routes
// that could not be made may work now.
func (t *routeTable) resync(ctx context.Context) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.synced {
		t.resyncLocked(ctx)
	}
}

func (t *routeTable) resyncLocked(ctx context.Context) {
	have, err := ourRoutes()
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot read the kernel's routes")
		return
	}
	present := make(map[netip.Prefix]netip.Addr, len(have))
	for i := range have {
		cidr, via := routeKey(&have[i])
		present[cidr] = via
		if !t.wanted(cidr, via) {
			if err := netlink.RouteDel(&have[i]); err != nil && !errors.Is(err, unix.ESRCH) {
				klog.FromContext(ctx).Error(err, "Cannot remove the route to a node that is gone", "podCIDR", cidr)
			}
		}
	}
	for _, chunk := range t.chunks {
		for cidr, via := range chunk {
			if present[cidr] != via {
				t.add(ctx, cidr, via)
			}
		}
	}
}

func (t *routeTable) wanted(cidr netip.Prefix, via netip.Addr) bool {
	for _, chunk := range t.chunks {
		if chunk[cidr] == via {
			return via != t.self
		}
	}
	return false
}

// unreachable says which routes are missing and why; "" when none is.
func (t *routeTable) unreachable() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for cidr, why := range t.failed {
		if n := len(t.failed) - 1; n > 0 {
			return fmt.Sprintf("no route to the pods of %s (and %d more ranges): %s", cidr, n, why)
		}
		return fmt.Sprintf("no route to the pods of %s: %s", cidr, why)
	}
	return ""
}

func (t *routeTable) add(ctx context.Context, cidr netip.Prefix, via netip.Addr) {
	if via == t.self {
		return
	}
	if err := addRoute(cidr, via); err != nil {
		if t.failed[cidr] != err.Error() {
			klog.FromContext(ctx).Error(err, "Pods of another node cannot be reached from here", "podCIDR", cidr, "node", via)
		}
		t.failed[cidr] = err.Error()
		return
	}
	delete(t.failed, cidr)
	klog.FromContext(ctx).V(2).Info("Added route", "podCIDR", cidr, "via", via)
}

func (t *routeTable) remove(ctx context.Context, cidr netip.Prefix, via netip.Addr) {
	delete(t.failed, cidr)
	if via == t.self {
		return
	}
	err := netlink.RouteDel(&netlink.Route{Dst: prefixNet(cidr), Gw: via.AsSlice(), Protocol: routeProtocol})
	if err != nil && !errors.Is(err, unix.ESRCH) {
		klog.FromContext(ctx).Error(err, "Cannot remove a route", "podCIDR", cidr, "via", via)
	}
	klog.FromContext(ctx).V(2).Info("Removed route", "podCIDR", cidr, "via", via)
}

// addRoute makes the route to a node's pods. The node must be on a network that this machine is on
// too: a router in between knows nothing of pod ranges.
func addRoute(cidr netip.Prefix, via netip.Addr) error {
	paths, err := netlink.RouteGet(via.AsSlice())
	if err != nil || len(paths) == 0 {
		return fmt.Errorf("node %s cannot be reached: %w", via, errors.Join(err, unix.ENETUNREACH))
	}
	if paths[0].Gw != nil {
		return fmt.Errorf("node %s is behind the router %s, and routers do not know pod ranges: nodes must share a network (or set --node-ip to the address on the shared one)", via, paths[0].Gw)
	}
	err = netlink.RouteReplace(&netlink.Route{Dst: prefixNet(cidr), Gw: via.AsSlice(), LinkIndex: paths[0].LinkIndex, Protocol: routeProtocol})
	if err != nil {
		return fmt.Errorf("route to %s via %s: %w", cidr, via, err)
	}
	return nil
}

// ourRoutes are the routes in the kernel that carry our mark.
func ourRoutes() ([]netlink.Route, error) {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return routes, nil
}

func routeKey(r *netlink.Route) (netip.Prefix, netip.Addr) {
	return netPrefix(r.Dst), netAddr(r.Gw)
}

func netPrefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(netAddr(n.IP), ones)
}

func netAddr(ip net.IP) netip.Addr {
	addr, _ := netip.AddrFromSlice(ip)
	return addr.Unmap()
}

// parseRoutes reads a chunk: keys like "10.42.1.0-24", values the node's address. What cannot be
// read is left out and named in the error.
func parseRoutes(data map[string]string) (map[netip.Prefix]netip.Addr, error) {
	routes := make(map[netip.Prefix]netip.Addr, len(data))
	var errs []error
	for key, value := range data {
		cidr, err := netip.ParsePrefix(strings.Replace(key, "-", "/", 1))
		if err == nil && (!cidr.Addr().Is4() || cidr != cidr.Masked() || cidr.Bits() == 0) {
			err = errors.New("not an IPv4 range")
		}
		via, viaErr := netip.ParseAddr(value)
		if viaErr == nil && !via.Is4() {
			viaErr = errors.New("not an IPv4 address")
		}
		if err := errors.Join(err, viaErr); err != nil {
			errs = append(errs, fmt.Errorf("%s=%s: %w", key, value, err))
			continue
		}
		routes[cidr] = via
	}
	return routes, errors.Join(errs...)
}

// isRoutes tells the ConfigMaps that hold routes.
func isRoutes(cm *corev1.ConfigMap) bool {
	return cm.Namespace == routesNamespace && strings.HasPrefix(cm.Name, routesPrefix)
}
