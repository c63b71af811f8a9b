package eviction

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Monitor follows the thresholds over time. Use it from one goroutine.
type Monitor struct {
	thresholds []Threshold
	// transition is how long a condition holds after it was last observed.
	transition time.Duration
	// first is when thresholds that are met now began to be.
	first map[Threshold]time.Time
	// acting are the thresholds that were acted on last.
	acting []Threshold
	// last is when conditions were last observed.
	last map[corev1.NodeConditionType]time.Time
}

// NewMonitor follows thresholds. Transition keeps a condition up after it was last observed, so
// that a node near its limit does not gain and lose a taint every few seconds.
func NewMonitor(thresholds []Threshold, transition time.Duration) *Monitor {
	return &Monitor{
		thresholds: thresholds, transition: transition,
		first: map[Threshold]time.Time{}, last: map[corev1.NodeConditionType]time.Time{},
	}
}

// State is what follows from one look.
type State struct {
	// Conditions that hold now, sorted.
	Conditions []corev1.NodeConditionType
	// Starved are the thresholds to act on, the most urgent first.
	Starved []Threshold
}

// Observe takes what was measured now.
func (m *Monitor) Observe(o Observations, now time.Time) State {
	first := map[Threshold]time.Time{}
	for _, t := range m.thresholds {
		if !t.met(o, false) && (!slices.Contains(m.acting, t) || !t.met(o, true)) {
			continue
		}
		at, seen := m.first[t]
		if !seen {
			at = now
		}
		first[t] = at
		m.last[t.Signal.Condition()] = now
	}
	m.first, m.acting = first, nil
	for _, t := range m.thresholds {
		if at, met := first[t]; met && now.Sub(at) >= t.Grace {
			m.acting = append(m.acting, t)
		}
	}
	return State{Conditions: m.conditions(now), Starved: slices.Clone(m.acting)}
}

// Resolved tells that no threshold is met any more, with room to spare where that is asked for.
func (m *Monitor) Resolved(o Observations) bool {
	return !slices.ContainsFunc(m.thresholds, func(t Threshold) bool { return t.met(o, true) })
}

func (m *Monitor) conditions(now time.Time) []corev1.NodeConditionType {
	var list []corev1.NodeConditionType
	for condition, at := range m.last {
		if at.Equal(now) || now.Sub(at) < m.transition {
			list = append(list, condition)
		}
	}
	slices.Sort(list)
	return list
}
