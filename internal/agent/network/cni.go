package network

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
)

const (
	// bridgeName is the bridge that this node's pods hang on.
	bridgeName = "everynode0"
	// cniName names the CNI network, and with it the folder of its leases.
	cniName = "everynode"
	// confName sorts behind 10-calico and the like: who installs another network wants that one.
	confName = "10-everynode.conflist"
)

// The CNI specification's network list, as far as it is used here.
type (
	cniList struct {
		CNIVersion string `json:"cniVersion"`
		Name       string `json:"name"`
		Plugins    []any  `json:"plugins"`
	}
	cniBridge struct {
		Type        string  `json:"type"`
		Bridge      string  `json:"bridge"`
		IsGateway   bool    `json:"isGateway"`
		IPMasq      bool    `json:"ipMasq"`
		HairpinMode bool    `json:"hairpinMode"`
		PromiscMode bool    `json:"promiscMode"`
		MTU         int     `json:"mtu,omitempty"`
		IPAM        cniIPAM `json:"ipam"`
	}
	cniIPAM struct {
		Type    string              `json:"type"`
		DataDir string              `json:"dataDir"`
		Ranges  [][]map[string]any  `json:"ranges"`
		Routes  []map[string]string `json:"routes"`
	}
	cniPortmap struct {
		Type         string          `json:"type"`
		Capabilities map[string]bool `json:"capabilities"`
		SNAT         bool            `json:"snat"`
	}
)

// cniConf is the CNI configuration of a node.
//
// ipMasq is off because the plugin makes a chain a pod (70 ms each); one rule a node does the same.
// hairpinMode lets a pod reach itself through its own hostPort. Version 0.4.0 is understood by every
// containerd and plugin since Debian 11.
func cniConf(podCIDR netip.Prefix, ipamDir string, mtu int) ([]byte, error) {
	return json.MarshalIndent(cniList{
		CNIVersion: "0.4.0",
		Name:       cniName,
		Plugins: []any{
			cniBridge{
				Type: "bridge", Bridge: bridgeName, IsGateway: true, HairpinMode: true, MTU: mtu,
				IPAM: cniIPAM{
					Type: "host-local", DataDir: ipamDir,
					Ranges: [][]map[string]any{{{"subnet": podCIDR.String()}}},
					Routes: []map[string]string{{"dst": "0.0.0.0/0"}},
				},
			},
			cniPortmap{Type: "portmap", Capabilities: map[string]bool{"portMappings": true}, SNAT: true},
		},
	}, "", "  ")
}

// writeConf puts the configuration into dir if it is not there like this already: the runtime
// reloads its network with every write it sees.
func writeConf(dir string, conf []byte) (changed bool, err error) {
	path := filepath.Join(dir, confName)
	have, err := os.ReadFile(path)
	if err == nil && bytes.Equal(have, conf) {
		return false, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, fmt.Errorf("CNI configuration: %w", err)
	}
	// The name must not end in a way the runtime would read, were it to look now.
	tmp, err := os.CreateTemp(dir, "."+confName+".*.tmp")
	if err != nil {
		return false, fmt.Errorf("CNI configuration: %w", err)
	}
	_, err = tmp.Write(conf)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return false, fmt.Errorf("CNI configuration %s: %w", path, err)
	}
	return true, nil
}

// overriding is the configuration in dir that the runtime takes instead of ours, or "".
func overriding(dir string) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	i := slices.IndexFunc(entries, func(e fs.DirEntry) bool {
		return slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(e.Name()))
	})
	if i < 0 || entries[i].Name() == confName {
		return ""
	}
	return filepath.Join(dir, entries[i].Name())
}

// gatewayOf is the first address of a pod range: the bridge's, and with it the pods' gateway. It is
// also what host-local takes for the gateway when none is named.
func gatewayOf(podCIDR netip.Prefix) netip.Addr { return podCIDR.Masked().Addr().Next() }

// parsePodCIDR reads a Node's pod range.
func parsePodCIDR(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("pod range of this node: %w", err)
	}
	if !p.Addr().Is4() || p.Bits() > 30 {
		return p, fmt.Errorf("pod range of this node: %s: want an IPv4 range of at least 4 addresses", s)
	}
	return p.Masked(), nil
}
