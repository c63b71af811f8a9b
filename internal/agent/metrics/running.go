package metrics

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-base/metrics"
)

var (
	runningPods = metrics.NewDesc(subsystem+"_running_pods", "Number of pods that have a running pod sandbox", nil, nil, metrics.ALPHA, "")
	containers  = metrics.NewDesc(subsystem+"_running_containers", "Number of containers currently running", []string{"container_state"}, nil, metrics.ALPHA, "")
)

// running counts pods and containers when it is asked.
type running struct {
	metrics.BaseStableCollector
	pods func() []*corev1.Pod
}

// DescribeWithStability implements metrics.StableCollector.
func (r *running) DescribeWithStability(ch chan<- *metrics.Desc) {
	ch <- runningPods
	ch <- containers
}

// CollectWithStability implements metrics.StableCollector.
func (r *running) CollectWithStability(ch chan<- metrics.Metric) {
	states := map[string]int{"running": 0}
	podCount := 0
	for _, pod := range r.pods() {
		before := states["running"]
		for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses} {
			for i := range list {
				switch {
				case list[i].State.Running != nil:
					states["running"]++
				case list[i].State.Terminated != nil:
					states["exited"]++
				}
			}
		}
		if states["running"] > before {
			podCount++
		}
	}
	ch <- metrics.NewLazyConstMetric(runningPods, metrics.GaugeValue, float64(podCount))
	for state, n := range states {
		ch <- metrics.NewLazyConstMetric(containers, metrics.GaugeValue, float64(n), state)
	}
}
