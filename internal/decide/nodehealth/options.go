package nodehealth

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Options are how patient a Set is. Zero fields take the defaults, which are upstream's.
type Options struct {
	// GracePeriod is how long a node may be silent before it counts as unreachable.
	GracePeriod time.Duration
	// StartupGracePeriod is the same for a node that has never reported.
	StartupGracePeriod time.Duration
	// EvictionRate is to how many nodes a second a NoExecute taint is given, and ReducedEvictionRate the same while
	// UnhealthyFraction of the fleet is not ready; a fleet of up to LargeFleet nodes gets none then.
	EvictionRate        float64
	ReducedEvictionRate float64
	LargeFleet          int
	UnhealthyFraction   float64
	// Pods finds the pods that are bound to a node, in any order. They are not changed. Required.
	Pods func(node string) []*corev1.Pod
}

// The defaults of Options.
const (
	DefaultGracePeriod         = 40 * time.Second
	DefaultStartupGracePeriod  = 60 * time.Second
	DefaultEvictionRate        = 0.1
	DefaultReducedEvictionRate = 0.01
	DefaultLargeFleet          = 50
	DefaultUnhealthyFraction   = 0.55
)

// Validate says which option is missing or out of range.
func (o *Options) Validate() error {
	switch {
	case o.Pods == nil:
		return fmt.Errorf("node health: Pods is required")
	case o.GracePeriod < 0 || o.StartupGracePeriod < 0:
		return fmt.Errorf("node health: grace periods are %v and %v, want positive durations (0: the default)", o.GracePeriod, o.StartupGracePeriod)
	case o.EvictionRate < 0 || o.ReducedEvictionRate < 0:
		return fmt.Errorf("node health: eviction rates are %v and %v nodes a second, want positive numbers (0: the default)", o.EvictionRate, o.ReducedEvictionRate)
	case o.LargeFleet < 0:
		return fmt.Errorf("node health: LargeFleet is %d, want a number of nodes (0: the default)", o.LargeFleet)
	case o.UnhealthyFraction < 0 || o.UnhealthyFraction > 1:
		return fmt.Errorf("node health: UnhealthyFraction is %v, want 0 to 1 (0: the default)", o.UnhealthyFraction)
	}
	return nil
}

func (o Options) withDefaults() Options {
	setDefault(&o.GracePeriod, DefaultGracePeriod)
	// Whoever is patient with a node that reports is not less so with one that starts.
	setDefault(&o.StartupGracePeriod, max(DefaultStartupGracePeriod, o.GracePeriod))
	setDefault(&o.EvictionRate, DefaultEvictionRate)
	setDefault(&o.ReducedEvictionRate, DefaultReducedEvictionRate)
	setDefault(&o.LargeFleet, DefaultLargeFleet)
	setDefault(&o.UnhealthyFraction, DefaultUnhealthyFraction)
	return o
}

func setDefault[T comparable](v *T, to T) {
	var none T
	if *v == none {
		*v = to
	}
}
