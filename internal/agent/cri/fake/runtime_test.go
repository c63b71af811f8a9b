package fake

import (
	"slices"
	"testing"

	"github.com/everynode/everynode/internal/agent/cri/conformance"
)

func TestConformance(t *testing.T) {
	r := New()
	r.Run = func(_ string, cmd []string) (string, int) {
		if slices.Equal(cmd, []string{"exit", "3"}) {
			return "", 3
		}
		return "", 0
	}
	conformance.Test(t, conformance.Subject{
		Runtime: r, Image: "app", Run: []string{"run"}, Deaf: []string{"deaf"}, Exit3: []string{"exit", "3"},
	})
}
