package network

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// SweepLeases gives back the pod addresses below ipamDir that host-local keeps for sandboxes which
// the runtime does not know (any more): a machine or runtime that was killed between the plugin and
// its own books leaves such, and a range has 253 addresses. No sandbox may be in the making.
func SweepLeases(ipamDir string, known func(sandbox string) bool) (freed int, err error) {
	dir := filepath.Join(ipamDir, cniName)
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("pod addresses in use: %w", err)
	}
	var errs []error
	for _, entry := range entries {
		// Beside the leases, each named by its address, are the plugin's lock and its last addresses.
		if _, err := netip.ParseAddr(entry.Name()); err != nil {
			continue
		}
		path := filepath.Join(dir, entry.Name())
		sandbox, err := leaseHolder(path)
		if err == nil && !known(sandbox) {
			if err = os.Remove(path); err == nil {
				freed++
			}
		}
		if err != nil && !os.IsNotExist(err) {
			errs = append(errs, err)
		}
	}
	return freed, errors.Join(errs...)
}

// leaseHolder is the first line of a lease: the id of its sandbox.
func leaseHolder(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	lines.Scan()
	return strings.TrimSpace(lines.Text()), lines.Err()
}
