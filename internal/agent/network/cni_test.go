package network

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCNIConf(t *testing.T) {
	got, err := cniConf(prefix("10.42.3.0/24"), "/var/lib/everynode/cni/ipam", 1400)
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "cniVersion": "0.4.0",
  "name": "everynode",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "everynode0",
      "isGateway": true,
      "ipMasq": false,
      "hairpinMode": true,
      "promiscMode": false,
      "mtu": 1400,
      "ipam": {
        "type": "host-local",
        "dataDir": "/var/lib/everynode/cni/ipam",
        "ranges": [
          [
            {
              "subnet": "10.42.3.0/24"
            }
          ]
        ],
        "routes": [
          {
            "dst": "0.0.0.0/0"
          }
        ]
      }
    },
    {
      "type": "portmap",
      "capabilities": {
        "portMappings": true
      },
      "snat": true
    }
  ]
}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestWriteConf(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "net.d")
	for i, step := range []struct {
		conf    string
		changed bool
	}{{"a", true}, {"a", false}, {"b", true}} {
		changed, err := writeConf(dir, []byte(step.conf))
		if err != nil || changed != step.changed {
			t.Errorf("step %d: changed %v, %v, want %v", i, changed, err, step.changed)
		}
	}
	entries, _ := os.ReadDir(dir)
	if len(entries) != 1 || entries[0].Name() != confName {
		t.Errorf("the folder has %v", entries)
	}
	if overriding(dir) != "" {
		t.Errorf("%s is said to come before ours", overriding(dir))
	}
	if err := os.WriteFile(filepath.Join(dir, "10-calico.conflist"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := overriding(dir); !strings.HasSuffix(got, "10-calico.conflist") {
		t.Errorf("overriding() = %q", got)
	}
}

func TestParsePodCIDR(t *testing.T) {
	for in, want := range map[string]string{"10.42.3.0/24": "10.42.3.1", "10.42.3.7/24": "10.42.3.1", "10.0.0.0/30": "10.0.0.1"} {
		cidr, err := parsePodCIDR(in)
		if err != nil || gatewayOf(cidr).String() != want {
			t.Errorf("%s: gateway %v, %v, want %s", in, gatewayOf(cidr), err, want)
		}
	}
	for _, in := range []string{"", "10.42.3.0", "2001:db8::/64", "10.0.0.0/31"} {
		if _, err := parsePodCIDR(in); err == nil {
			t.Errorf("%q was taken", in)
		}
	}
}

func TestSweepLeases(t *testing.T) {
	dir := t.TempDir()
	leases := filepath.Join(dir, cniName)
	if err := os.MkdirAll(leases, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"10.42.0.2": "live\r\neth0", "10.42.0.3": "gone\r\neth0", "10.42.0.4": "gone2", "last_reserved_ip.0": "10.42.0.4", "lock": "",
	} {
		if err := os.WriteFile(filepath.Join(leases, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	freed, err := SweepLeases(dir, func(id string) bool { return id == "live" })
	if err != nil || freed != 2 {
		t.Errorf("freed %d, %v, want 2", freed, err)
	}
	var left []string
	entries, _ := os.ReadDir(leases)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if diff := cmp.Diff([]string{"10.42.0.2", "last_reserved_ip.0", "lock"}, left); diff != "" {
		t.Error(diff)
	}
	if _, err := SweepLeases(filepath.Join(dir, "none"), nil); err != nil {
		t.Errorf("no leases yet: %v", err)
	}
}
