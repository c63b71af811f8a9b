package env

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"

	"github.com/everynode/everynode/internal/agent/downward"
	"github.com/everynode/everynode/internal/agent/objects"
)

// Var is one environment variable.
type Var struct{ Name, Value string }

// Make returns the environment of a container.
func Make(ctx context.Context, pod *corev1.Pod, c *corev1.Container, f downward.Facts, services []*corev1.Service, src objects.Source) ([]Var, error) {
	return nil, errors.New("not built yet")
}

// Expand replaces $(NAME) in s.
func Expand(s string, vars []Var) string { return s }
