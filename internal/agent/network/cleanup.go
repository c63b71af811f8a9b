package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
)

// Cleanup removes everything this package puts into the kernel: firewall chains, routes, the API's
// address on lo and the bridge; and its configuration from the CNI folders that are given. It needs
// no agent, and finding nothing is fine. An agent that runs would put things back: stop it first.
func Cleanup(ctx context.Context, cniConfDirs ...string) error {
	errs := []error{
		removeFirewall(ctx),
		removeRoutes(),
		removeServiceAddresses(netip.Addr{}),
		removeBridge(),
	}
	for _, dir := range cniConfDirs {
		if err := os.Remove(filepath.Join(dir, confName)); err != nil && !os.IsNotExist(err) {
			errs = append(errs, fmt.Errorf("CNI configuration: %w", err))
		}
	}
	return errors.Join(errs...)
}

func removeRoutes() error {
	routes, err := ourRoutes()
	if err != nil {
		return err
	}
	var errs []error
	for i := range routes {
		if err := netlink.RouteDel(&routes[i]); err != nil {
			errs = append(errs, fmt.Errorf("remove route to %s: %w", routes[i].Dst, err))
		}
	}
	return errors.Join(errs...)
}

func removeBridge() error {
	link, err := netlink.LinkByName(bridgeName)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("remove bridge %s: %w", bridgeName, err)
	}
	return nil
}
