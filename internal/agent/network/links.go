package network

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// loLabel marks the addresses on lo that are ours.
const loLabel = "lo:everynode"

// defaultMTU is that of plain Ethernet.
const defaultMTU = 1500

// ensureForwarding lets this machine pass packets on between pods, other nodes and the world.
func ensureForwarding() error {
	const path = "/proc/sys/net/ipv4/ip_forward"
	have, err := os.ReadFile(path)
	if err == nil && strings.TrimSpace(string(have)) == "1" {
		return nil
	}
	if err := os.WriteFile(path, []byte("1\n"), 0o644); err != nil {
		return fmt.Errorf("IPv4 forwarding is off and cannot be turned on: %w; turn it on with: sysctl net.ipv4.ip_forward=1", err)
	}
	return nil
}

// ensureBridge makes the bridge before the first pod does, with the gateway's address, so that the
// host has an address pods can reach from the start. The CNI plugin finds it and leaves it so.
func ensureBridge(podCIDR netip.Prefix, mtu int) error {
	gateway := gatewayOf(podCIDR)
	link, err := netlink.LinkByName(bridgeName)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		link, err = addBridge(gateway, mtu)
	}
	if err != nil {
		return fmt.Errorf("bridge %s: %w", bridgeName, err)
	}
	if link.Type() != "bridge" {
		return fmt.Errorf("bridge %s: there is an interface of this name, but it is a %s: remove or rename it", bridgeName, link.Type())
	}
	want := prefixNet(netip.PrefixFrom(gateway, podCIDR.Bits()))
	if err := setOnlyAddress(link, want); err != nil {
		return fmt.Errorf("bridge %s: %w", bridgeName, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bridge %s: set up: %w", bridgeName, err)
	}
	return nil
}

func addBridge(gateway netip.Addr, mtu int) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = bridgeName, mtu
	// A bridge without an address of its own takes the lowest of its ports', and pods would have to
	// learn a new gateway whenever one comes or goes.
	v4 := gateway.As4()
	attrs.HardwareAddr = net.HardwareAddr{0x0a, 0x58, v4[0], v4[1], v4[2], v4[3]}
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, err
	}
	return netlink.LinkByName(bridgeName)
}

// setOnlyAddress gives link this IPv4 address and no other: the node's range may have changed.
func setOnlyAddress(link netlink.Link, want *net.IPNet) error {
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	have := false
	for i := range addrs {
		if addrs[i].IPNet.String() == want.String() {
			have = true
			continue
		}
		if err := netlink.AddrDel(link, &addrs[i]); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove old address %s: %w", addrs[i].IPNet, err)
		}
	}
	if have {
		return nil
	}
	if err := netlink.AddrAdd(link, &netlink.Addr{IPNet: want}); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add address %s: %w", want, err)
	}
	return nil
}

// ensureServiceAddress puts the API's ClusterIP on lo, so that the kernel delivers packets for it,
// from pods and from the host, to the forwarder on this machine. Any older one of ours goes.
func ensureServiceAddress(ip netip.Addr) error {
	if err := removeServiceAddresses(ip); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	addr := &netlink.Addr{IPNet: prefixNet(netip.PrefixFrom(ip, ip.BitLen())), Label: loLabel, Scope: int(netlink.SCOPE_HOST)}
	if err := netlink.AddrAdd(lo, addr); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("put the API service's address %s on lo: %w", ip, err)
	}
	return nil
}

// removeServiceAddresses takes our addresses off lo, all but keep.
func removeServiceAddresses(keep netip.Addr) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	addrs, err := netlink.AddrList(lo, netlink.FAMILY_V4)
	if err != nil {
		return fmt.Errorf("addresses of lo: %w", err)
	}
	for i := range addrs {
		if addrs[i].Label != loLabel || addrs[i].IP.String() == keep.String() {
			continue
		}
		if err := netlink.AddrDel(lo, &addrs[i]); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("take %s off lo: %w", addrs[i].IP, err)
		}
	}
	return nil
}

// mtuTo is the MTU of the interface that has ip, so that packets from pods pass it whole.
func mtuTo(ip net.IP) int {
	links, err := netlink.LinkList()
	if err != nil {
		return defaultMTU
	}
	for _, link := range links {
		if link.Attrs().Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			continue
		}
		for _, addr := range addrs {
			if addr.IP.Equal(ip) && link.Attrs().MTU > 0 {
				return link.Attrs().MTU
			}
		}
	}
	return defaultMTU
}

func prefixNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
