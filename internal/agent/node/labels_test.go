package node

import (
	"strings"
	"testing"
)

func TestValidateLabels(t *testing.T) {
	tests := []struct {
		key, value string
		want       string // part of the error; "" for none
	}{
		{key: "logging", value: "true"},
		{key: "example.com/pool", value: "edge"},
		{key: "topology.kubernetes.io/zone", value: "a"},
		{key: "node.kubernetes.io/pool", value: "a"},
		{key: "x.node.kubernetes.io/pool", value: "a"},
		{key: "kubelet.kubernetes.io/x", value: ""},
		{key: "node-role.kubernetes.io/master", value: "", want: "may not give itself"},
		{key: "node-restriction.kubernetes.io/x", value: "", want: "may not give itself"},
		{key: "k8s.io/x", value: "", want: "may not give itself"},
		{key: "notkubernetes.io/x", value: ""},
		{key: "kubernetes.io/hostname", value: "x", want: "--node-name"},
		{key: "kubernetes.io/arch", value: "x", want: "set by the agent"},
		{key: "a b", value: "x", want: `key "a b"`},
		{key: "a", value: "x y", want: `value "x y" of "a"`},
	}
	for _, tt := range tests {
		t.Run(tt.key, func(t *testing.T) {
			err := ValidateLabels(map[string]string{tt.key: tt.value})
			if tt.want == "" && err != nil {
				t.Errorf("refused: %v", err)
			}
			if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
	if err := ValidateLabels(map[string]string{"a b": "", "c d": ""}); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("two wrong labels: %v, want a line for each", err)
	}
}
