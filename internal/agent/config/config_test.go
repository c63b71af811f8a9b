package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const head = "apiVersion: everynode.io/v1alpha1\nkind: AgentConfiguration\n"

func TestParse(t *testing.T) {
	c, err := Parse([]byte(head + "staticPodPath: /etc/kubernetes/manifests\nofflinePods: false\n"))
	if err != nil {
		t.Fatal(err)
	}
	if *c.StaticPodPath != "/etc/kubernetes/manifests" || *c.OfflinePods {
		t.Errorf("read %+v", c)
	}
	if c, err = Parse([]byte(head)); err != nil || c.StaticPodPath != nil || c.OfflinePods != nil {
		t.Errorf("what is not given must be nil: %+v, %v", c, err)
	}
	if _, err := Parse([]byte(`{"apiVersion": "everynode.io/v1alpha1", "kind": "AgentConfiguration", "staticPodPath": ""}`)); err != nil {
		t.Errorf("JSON, and no static pods: %v", err)
	}
}

func TestParseRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want []string // all in the error
	}{
		"an empty file":        {"# nothing\n", []string{"empty", "apiVersion: everynode.io/v1alpha1"}},
		"no version":           {"staticPodPath: /x\n", []string{"apiVersion", "want apiVersion: everynode.io/v1alpha1"}},
		"the kubelet's":        {"apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nmaxPods: 3\n", []string{"KubeletConfiguration", "same names"}},
		"an unknown field":     {head + "staticPodPth: /x\n", []string{`unknown field "staticPodPth"`, "staticPodPath"}},
		"another case":         {head + "staticpodpath: /x\n", []string{`unknown field "staticpodpath"`}},
		"a wrong type":         {head + "staticPodPath: [1]\n", []string{"staticPodPath", "array", "string"}},
		"another wrong type":   {head + "offlinePods: maybe\n", []string{"offlinePods", "string", "bool"}},
		"the same twice":       {head + "offlinePods: true\nofflinePods: false\n", []string{"offlinePods", "line"}},
		"a sysctl of the node": {head + "allowedUnsafeSysctls: [net.core.somaxconn, vm.swappiness]\n", []string{"allowedUnsafeSysctls[1]", "vm.swappiness", "whole node"}},
		"a relative path":      {head + "staticPodPath: manifests\n", []string{"staticPodPath", `"manifests"`, "absolute"}},
		"no YAML":              {head + "\tx: {\n", []string{"line 3"}},
		"something else":       {"[]", []string{"array"}},
		"a secret's contents":  {"\x00\x01", []string{"control characters"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(c.text))
			if err == nil {
				t.Fatal("not refused")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q lacks %q", err, want)
				}
			}
		})
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a file that is not there: %v", err)
	}
	if err := os.WriteFile(path, []byte(head+"x: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "--config "+path) {
		t.Errorf("a bad file: %v", err)
	}
	if err := os.WriteFile(path, []byte(strings.Repeat("#", maxSize+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); err == nil || !strings.Contains(err.Error(), "larger") {
		t.Errorf("a huge file: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(head + "staticPodPath: /etc/kubernetes/manifests\n"))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if c, err := Parse(data); (c == nil) == (err == nil) && err == nil {
			t.Error("neither a configuration nor an error")
		}
	})
}
