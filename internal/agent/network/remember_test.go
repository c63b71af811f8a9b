package network

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

func TestRemembered(t *testing.T) {
	file := filepath.Join(t.TempDir(), "network.json")
	given := desired{Cluster: netip.MustParsePrefix("10.42.0.0/16"), Service: netip.MustParseAddr("10.43.0.1")}
	if got := remembered(file, given); got != given {
		t.Errorf("nothing to remember: %+v", got)
	}
	used := desired{Pods: netip.MustParsePrefix("10.42.3.0/24"), Cluster: given.Cluster, Service: netip.MustParseAddr("10.44.0.1")}
	remember(t.Context(), file, used)
	if got := remembered(file, given); got != used {
		t.Errorf("remembered %+v, want %+v", got, used)
	}
	for _, damaged := range []string{"", "{", "[]", `{"pods": "x"}`, `{"pods": "10.42.3.0/32"}`, `{"pods": "fd00::/64"}`, `{"cluster": ""}`, `{"service": "fd00::1"}`} {
		if err := os.WriteFile(file, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := remembered(file, given); got != given {
			t.Errorf("%q: %+v", damaged, got)
		}
	}
	if got := remembered("", given); got != given {
		t.Errorf("no file: %+v", got)
	}
}

// FuzzRemembered: what a file says is refused, or ranges and addresses that can be used.
func FuzzRemembered(f *testing.F) {
	f.Add([]byte(`{"pods":"10.42.3.0/24","cluster":"10.42.0.0/16","service":"10.44.0.1"}`))
	f.Add([]byte(`null`))
	given := desired{Cluster: netip.MustParsePrefix("10.42.0.0/16"), Service: netip.MustParseAddr("10.43.0.1")}
	f.Fuzz(func(t *testing.T, text []byte) {
		file := filepath.Join(t.TempDir(), "network.json")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		d := remembered(file, given)
		if d == given {
			return
		}
		if !d.Service.Is4() || !d.Cluster.IsValid() || !d.Cluster.Addr().Is4() {
			t.Errorf("remembered %+v", d)
		}
		if d.Pods.IsValid() {
			if _, err := cniConf(d.Pods, "/ipam", 1500); err != nil {
				t.Errorf("remembered %+v: %v", d, err)
			}
		}
	})
}
