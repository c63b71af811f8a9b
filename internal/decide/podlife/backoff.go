package podlife

import "time"

// The restart back-off of containers, as users know it:
// https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy
const (
	firstDelay = 10 * time.Second
	maxDelay   = 5 * time.Minute
	// healthyFor is how long a container must have run for its history to be forgotten.
	healthyFor = 2 * maxDelay
)

// delayAfter is how long to wait after c ended. The first restart is immediate.
func delayAfter(c Container) time.Duration {
	if c.Finished.Sub(c.Started) > healthyFor {
		return 0
	}
	return c.Delay
}

// longer is the delay that follows d in the row 0, 10 s, 20 s, … 5 min.
func longer(d time.Duration) time.Duration {
	if d == 0 {
		return firstDelay
	}
	return min(2*d, maxDelay)
}

// retryLimits bound how fast a failed step is tried again. Pulls follow the
// kubelet; other steps are local and cheap, so that what a user repairs (a missing
// ConfigMap, a full disk) is noticed within seconds.
func retryLimits(k Kind, f Failure) (first, longest time.Duration) {
	switch {
	case f.Reason == "": // the runtime is away: it may be back at any moment
		return 100 * time.Millisecond, 2 * time.Second
	case f.Reason == ErrImagePull:
		return 10 * time.Second, 5 * time.Minute
	case k == SetUpVolumes:
		return 500 * time.Millisecond, 15 * time.Second
	case k == RunSandbox:
		return time.Second, 20 * time.Second
	case k == StartContainer, k == EnsureImage:
		return time.Second, 10 * time.Second
	}
	return 250 * time.Millisecond, 10 * time.Second
}

// retryAt is when a step of kind k that failed may be tried again.
func retryAt(k Kind, f Failure) time.Time {
	d, longest := retryLimits(k, f)
	for i := 1; i < f.Count && d < longest; i++ {
		d *= 2
	}
	return f.At.Add(min(d, longest))
}
