package metrics

import (
	"net/http"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-base/metrics"
)

var (
	probes     = metrics.NewKubeRegistry()
	probeTotal = metrics.NewCounterVec(&metrics.CounterOpts{
		Subsystem: "prober", Name: "probe_total", StabilityLevel: metrics.BETA,
		Help: "Cumulative number of a liveness, readiness or startup probe for a container by result.",
	}, []string{"probe_type", "result", "container", "pod", "namespace", "pod_uid"})
)

// ProbesHandler serves /metrics/probes.
func ProbesHandler() http.Handler {
	return metrics.HandlerFor(probes, metrics.HandlerOpts{ErrorHandling: metrics.ContinueOnError})
}

// The kinds and results of probes, as the kubelet's counter has them.
var (
	probeKinds   = []string{"Startup", "Readiness", "Liveness"}
	probeResults = []string{"successful", "failed", "unknown"}
)

// Probed is a container whose probes are counted.
type Probed struct {
	Namespace, Pod, Container string
	UID                       types.UID
}

func (p Probed) labels(kind, result string) map[string]string {
	return map[string]string{
		"probe_type": kind, "result": result, "container": p.Container, "pod": p.Pod, "namespace": p.Namespace, "pod_uid": string(p.UID),
	}
}

// Count notes a probe: its kind is Startup, Readiness or Liveness, its result successful, failed or
// unknown.
func (p Probed) Count(kind, result string) { probeTotal.With(p.labels(kind, result)).Inc() }

// Forget drops the counts of a container that is probed no more.
func (p Probed) Forget() {
	for _, kind := range probeKinds {
		for _, result := range probeResults {
			probeTotal.Delete(p.labels(kind, result))
		}
	}
}
