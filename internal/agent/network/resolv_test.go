package network

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestDNS(t *testing.T) {
	const plain = "nameserver 192.0.2.53\nsearch example.com lab.example.com\noptions ndots:2 timeout:1\n"
	const stub = "nameserver 127.0.0.53\noptions edns0\n"
	cluster := DNS{ClusterServers: []string{"10.43.0.10"}, ClusterDomain: "cluster.local"}
	tests := []struct {
		name   string
		dns    DNS
		host   string
		behind string // what the stub file says
		spec   corev1.PodSpec
		want   string // servers | searches | options
	}{
		{name: "Default", host: plain, spec: corev1.PodSpec{DNSPolicy: corev1.DNSDefault}, dns: cluster,
			want: "192.0.2.53 | example.com lab.example.com | ndots:2 timeout:1"},
		{name: "ClusterFirst", host: plain, dns: cluster, spec: corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst},
			want: "10.43.0.10 | ns.svc.cluster.local svc.cluster.local cluster.local example.com lab.example.com | ndots:5"},
		{name: "ClusterFirst without cluster DNS", host: plain, spec: corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst},
			want: "192.0.2.53 | example.com lab.example.com | ndots:2 timeout:1"},
		{name: "ClusterFirst on the host network", host: plain, dns: cluster, spec: corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirst, HostNetwork: true},
			want: "192.0.2.53 | example.com lab.example.com | ndots:2 timeout:1"},
		{name: "ClusterFirstWithHostNet", host: plain, dns: cluster, spec: corev1.PodSpec{DNSPolicy: corev1.DNSClusterFirstWithHostNet, HostNetwork: true},
			want: "10.43.0.10 | ns.svc.cluster.local svc.cluster.local cluster.local example.com lab.example.com | ndots:5"},
		{name: "None", host: plain, dns: cluster,
			spec: corev1.PodSpec{DNSPolicy: corev1.DNSNone, DNSConfig: &corev1.PodDNSConfig{
				Nameservers: []string{"192.0.2.1"}, Searches: []string{"a.b"}, Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr.To("3")}, {Name: "edns0"}},
			}},
			want: "192.0.2.1 | a.b | ndots:3 edns0"},
		{name: "dnsConfig adds and overrides", host: plain,
			spec: corev1.PodSpec{DNSPolicy: corev1.DNSDefault, DNSConfig: &corev1.PodDNSConfig{
				Nameservers: []string{"192.0.2.53", "192.0.2.54"}, Searches: []string{"example.com", "x.y"}, Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr.To("7")}},
			}},
			want: "192.0.2.53 192.0.2.54 | example.com lab.example.com x.y | ndots:7 timeout:1"},
		{name: "at most three servers", host: "nameserver 1.1.1.1\nnameserver 2.2.2.2\nnameserver 3.3.3.3\nnameserver 4.4.4.4\n", spec: corev1.PodSpec{DNSPolicy: corev1.DNSDefault},
			want: "1.1.1.1 2.2.2.2 3.3.3.3 |  | "},
		{name: "a stub resolver cannot be reached from a pod", host: stub, behind: plain, spec: corev1.PodSpec{DNSPolicy: corev1.DNSDefault},
			want: "192.0.2.53 | example.com lab.example.com | ndots:2 timeout:1"},
		{name: "but from the host network", host: stub, behind: plain, spec: corev1.PodSpec{DNSPolicy: corev1.DNSDefault, HostNetwork: true},
			want: "127.0.0.53 |  | edns0"},
		{name: "a stub with nothing known behind it", host: stub, spec: corev1.PodSpec{DNSPolicy: corev1.DNSDefault},
			want: "127.0.0.53 |  | edns0"},
		{name: "no resolv.conf", spec: corev1.PodSpec{DNSPolicy: corev1.DNSDefault}, want: " |  | "},
		{name: "comments, blanks, dots", host: "# nameserver 9.9.9.9\n; search no\n\n nameserver\t1.1.1.1 \nsearch old\nsearch example.com. .\nnameserver\n", spec: corev1.PodSpec{DNSPolicy: corev1.DNSDefault},
			want: "1.1.1.1 | example.com | "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			tt.dns.HostFile, tt.dns.StubFile = filepath.Join(dir, "host"), filepath.Join(dir, "stub")
			for path, content := range map[string]string{tt.dns.HostFile: tt.host, tt.dns.StubFile: tt.behind} {
				if content == "" {
					continue
				}
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			conf, err := tt.dns.For(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"}, Spec: tt.spec})
			if err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprintf("%s | %s | %s", strings.Join(conf.Servers, " "), strings.Join(conf.Searches, " "), strings.Join(conf.Options, " "))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSearchLimits(t *testing.T) {
	var many []string
	for i := range 40 {
		many = append(many, fmt.Sprintf("d%d", i))
	}
	if got := limitSearches(many); len(got) != maxSearches {
		t.Errorf("%d searches, want %d", len(got), maxSearches)
	}
	long := strings.Repeat("x", 200)
	if got := limitSearches([]string{strings.Repeat("y", 254), "a"}); len(got) != 1 || got[0] != "a" {
		t.Errorf("a domain of 254 characters stayed: %v", got)
	}
	var wide []string
	for i := range 20 {
		wide = append(wide, fmt.Sprintf("%s%d", long, i))
	}
	if got := strings.Join(limitSearches(wide), " "); len(got) > maxSearchChars || len(got) < maxSearchChars-300 {
		t.Errorf("line of %d characters", len(got))
	}
}
