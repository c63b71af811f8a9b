package metrics

import (
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

const subsystem = "kubelet"

// startBuckets are the kubelet's, with finer ones for what starts fast.
var startBuckets = []float64{0.1, 0.2, 0.5, 1, 2, 3, 4, 5, 6, 8, 10, 20, 30, 45, 60, 120, 180, 240, 300, 360, 480, 600, 900, 1200, 1800, 2700, 3600}

// What the agent does with pods.
var (
	nodeName = metrics.NewGaugeVec(&metrics.GaugeOpts{
		Subsystem: subsystem, Name: "node_name", StabilityLevel: metrics.ALPHA, Help: "The node's name. The count is always 1.",
	}, []string{"node"})
	startedPods = metrics.NewCounter(&metrics.CounterOpts{
		Subsystem: subsystem, Name: "started_pods_total", StabilityLevel: metrics.ALPHA, Help: "Cumulative number of pods started",
	})
	startedPodsErrors = metrics.NewCounter(&metrics.CounterOpts{
		Subsystem: subsystem, Name: "started_pods_errors_total", StabilityLevel: metrics.ALPHA, Help: "Cumulative number of errors when starting pods",
	})
	startedContainers = metrics.NewCounter(&metrics.CounterOpts{
		Subsystem: subsystem, Name: "started_containers_total", StabilityLevel: metrics.ALPHA, Help: "Cumulative number of containers started",
	})
	startedContainersErrors = metrics.NewCounter(&metrics.CounterOpts{
		Subsystem: subsystem, Name: "started_containers_errors_total", StabilityLevel: metrics.ALPHA, Help: "Cumulative number of errors when starting containers",
	})
	podStart = metrics.NewHistogram(&metrics.HistogramOpts{
		Subsystem: subsystem, Name: "pod_start_duration_seconds", StabilityLevel: metrics.ALPHA, Buckets: startBuckets,
		Help: "Duration in seconds from kubelet seeing a pod for the first time to the pod starting to run",
	})
	podStartTotal = metrics.NewHistogram(&metrics.HistogramOpts{
		Subsystem: subsystem, Name: "pod_start_total_duration_seconds", StabilityLevel: metrics.ALPHA, Buckets: startBuckets,
		Help: "Duration in seconds to start a pod since creation, including time to pull images and run init containers",
	})
	relistDuration = metrics.NewHistogram(&metrics.HistogramOpts{
		Subsystem: subsystem, Name: "pleg_relist_duration_seconds", StabilityLevel: metrics.ALPHA, Buckets: metrics.DefBuckets,
		Help: "Duration in seconds for relisting pods in PLEG.",
	})
	relistInterval = metrics.NewHistogram(&metrics.HistogramOpts{
		Subsystem: subsystem, Name: "pleg_relist_interval_seconds", StabilityLevel: metrics.ALPHA, Buckets: metrics.DefBuckets,
		Help: "Interval in seconds between relisting in PLEG.",
	})
	lastRelist = metrics.NewGauge(&metrics.GaugeOpts{
		Subsystem: subsystem, Name: "pleg_last_seen_seconds", StabilityLevel: metrics.ALPHA, Help: "Timestamp in seconds when PLEG was last seen active.",
	})
)

// What the agent asks of the runtime.
var (
	operations = metrics.NewCounterVec(&metrics.CounterOpts{
		Subsystem: subsystem, Name: "runtime_operations_total", StabilityLevel: metrics.ALPHA, Help: "Cumulative number of runtime operations by operation type.",
	}, []string{"operation_type"})
	operationErrors = metrics.NewCounterVec(&metrics.CounterOpts{
		Subsystem: subsystem, Name: "runtime_operations_errors_total", StabilityLevel: metrics.ALPHA, Help: "Cumulative number of runtime operation errors by operation type.",
	}, []string{"operation_type"})
	operationDuration = metrics.NewHistogramVec(&metrics.HistogramOpts{
		Subsystem: subsystem, Name: "runtime_operations_duration_seconds", StabilityLevel: metrics.ALPHA, Buckets: metrics.ExponentialBuckets(.005, 2.5, 14),
		Help: "Duration in seconds of runtime operations. Broken down by operation type.",
	}, []string{"operation_type"})
)

var registered sync.Once

// Register makes everything countable, for the agent of the given node. pods are those it has, with
// their present status. Only the first call of a process has an effect.
func Register(node string, pods func() []*corev1.Pod) {
	registered.Do(func() {
		legacyregistry.MustRegister(nodeName, startedPods, startedPodsErrors, startedContainers, startedContainersErrors, podStart, podStartTotal,
			relistDuration, relistInterval, lastRelist, operations, operationErrors, operationDuration)
		legacyregistry.CustomMustRegister(&running{pods: pods})
		probes.MustRegister(probeTotal)
		nodeName.WithLabelValues(node).Set(1)
	})
}

// Handler serves /metrics.
func Handler() http.Handler { return legacyregistry.Handler() }

// PodRuns notes that a pod has begun to run: seen by the agent and created at the given times.
func PodRuns(seen, created, now time.Time) {
	podStart.Observe(now.Sub(seen).Seconds())
	podStartTotal.Observe(now.Sub(created).Seconds())
}

// PodStarted notes an attempt to make a pod's sandbox.
func PodStarted(err error) { countEither(startedPods, startedPodsErrors, err) }

// ContainerStarted notes an attempt to start a container.
func ContainerStarted(err error) { countEither(startedContainers, startedContainersErrors, err) }

func countEither(all, failed *metrics.Counter, err error) {
	all.Inc()
	if err != nil {
		failed.Inc()
	}
}

// Relisted notes a full list of the runtime's containers: when it began, and when the one before
// did (zero for none).
func Relisted(before, began, now time.Time) {
	relistDuration.Observe(now.Sub(began).Seconds())
	if !before.IsZero() {
		relistInterval.Observe(began.Sub(before).Seconds())
	}
	lastRelist.Set(float64(now.Unix()))
}

// Operation notes a call to the runtime.
func Operation(kind string, took time.Duration, err error) {
	operations.WithLabelValues(kind).Inc()
	operationDuration.WithLabelValues(kind).Observe(took.Seconds())
	if err != nil {
		operationErrors.WithLabelValues(kind).Inc()
	}
}
