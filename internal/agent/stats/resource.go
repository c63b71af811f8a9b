package stats

import (
	"context"
	"net/http"
	"time"

	"k8s.io/component-base/metrics"
	"k8s.io/klog/v2"
)

// collectTimeout bounds a measurement that is made for a scraper.
const collectTimeout = 10 * time.Second

var (
	containerLabels = []string{"container", "pod", "namespace"}
	podLabels       = []string{"pod", "namespace"}
)

// The names, labels and stability of the kubelet's /metrics/resource.
// https://kubernetes.io/docs/reference/instrumentation/node-metrics/
var (
	nodeCPU         = describe("node_cpu_usage_seconds_total", "Cumulative cpu time consumed by the node in core-seconds", nil, metrics.STABLE)
	nodeMemory      = describe("node_memory_working_set_bytes", "Current working set of the node in bytes", nil, metrics.STABLE)
	nodeSwap        = describe("node_swap_usage_bytes", "Current swap usage of the node in bytes. Reported only on non-windows systems", nil, metrics.ALPHA)
	containerStart  = describe("container_start_time_seconds", "Start time of the container since unix epoch in seconds", containerLabels, metrics.STABLE)
	containerCPU    = describe("container_cpu_usage_seconds_total", "Cumulative cpu time consumed by the container in core-seconds", containerLabels, metrics.STABLE)
	containerMemory = describe("container_memory_working_set_bytes", "Current working set of the container in bytes", containerLabels, metrics.STABLE)
	containerSwap   = describe("container_swap_usage_bytes", "Current amount of the container swap usage in bytes. Reported only on non-windows systems", containerLabels, metrics.ALPHA)
	podCPU          = describe("pod_cpu_usage_seconds_total", "Cumulative cpu time consumed by the pod in core-seconds", podLabels, metrics.STABLE)
	podMemory       = describe("pod_memory_working_set_bytes", "Current working set of the pod in bytes", podLabels, metrics.STABLE)
	podSwap         = describe("pod_swap_usage_bytes", "Current amount of the pod swap usage in bytes. Reported only on non-windows systems", podLabels, metrics.ALPHA)
	resourceError   = describe("resource_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise", nil, metrics.STABLE)
	scrapeError     = describe("scrape_error", "1 if there was an error while getting container metrics, 0 otherwise", nil, metrics.ALPHA)
)

func describe(name, help string, labels []string, level metrics.StabilityLevel) *metrics.Desc {
	return metrics.NewDesc(name, help, labels, nil, level, "")
}

// ResourceMetrics serves /metrics/resource, which metrics-server and autoscalers read.
func (p *Provider) ResourceMetrics() http.Handler {
	return handler(&resourceCollector{provider: p})
}

func handler(c metrics.StableCollector) http.Handler {
	registry := metrics.NewKubeRegistry()
	registry.CustomMustRegister(c)
	return metrics.HandlerFor(registry, metrics.HandlerOpts{ErrorHandling: metrics.ContinueOnError})
}

type resourceCollector struct {
	metrics.BaseStableCollector
	provider *Provider
}

// DescribeWithStability implements metrics.StableCollector.
func (c *resourceCollector) DescribeWithStability(ch chan<- *metrics.Desc) {
	for _, d := range []*metrics.Desc{
		nodeCPU, nodeMemory, nodeSwap, containerStart, containerCPU, containerMemory, containerSwap,
		podCPU, podMemory, podSwap, resourceError, scrapeError,
	} {
		ch <- d
	}
}

// CollectWithStability implements metrics.StableCollector: only what runs now has a value.
func (c *resourceCollector) CollectWithStability(ch chan<- metrics.Metric) {
	out := emitter{ch}
	s, failed := c.provider.collect()
	out.plain(scrapeError, metrics.GaugeValue, failed)
	out.plain(resourceError, metrics.GaugeValue, failed)
	if s == nil {
		return
	}
	out.at(s.node.cpu.at, nodeCPU, metrics.CounterValue, s.node.cpu.total.Seconds())
	out.at(s.at, nodeMemory, metrics.GaugeValue, float64(s.node.memory.WorkingSet))
	out.at(s.at, nodeSwap, metrics.GaugeValue, float64(s.node.memory.Swap))
	for _, pod := range s.pods {
		name, namespace := pod.pod.Name, pod.pod.Namespace
		for _, c := range pod.containers {
			out.plain(containerStart, metrics.GaugeValue, seconds(c.started), c.name, name, namespace)
			out.at(c.cpu.at, containerCPU, metrics.CounterValue, c.cpu.total.Seconds(), c.name, name, namespace)
			out.at(s.at, containerMemory, metrics.GaugeValue, float64(c.memory.WorkingSet), c.name, name, namespace)
			out.at(s.at, containerSwap, metrics.GaugeValue, float64(c.memory.Swap), c.name, name, namespace)
		}
		out.at(pod.cpu.at, podCPU, metrics.CounterValue, pod.cpu.total.Seconds(), name, namespace)
		out.at(s.at, podMemory, metrics.GaugeValue, float64(pod.memory.WorkingSet), name, namespace)
		out.at(s.at, podSwap, metrics.GaugeValue, float64(pod.memory.Swap), name, namespace)
	}
}

// collect measures for a scraper; failed is 1 if something could not be measured.
func (p *Provider) collect() (s *snapshot, failed float64) {
	ctx, cancel := context.WithTimeout(context.Background(), collectTimeout)
	defer cancel()
	s, err := p.measured(ctx, false)
	if err == nil {
		err = s.err
	}
	if err != nil {
		klog.FromContext(ctx).Error(err, "Cannot measure everything that a scraper asked for")
		failed = 1
	}
	return s, failed
}

func seconds(at time.Time) float64 { return float64(at.UnixNano()) / float64(time.Second) }

type emitter struct{ ch chan<- metrics.Metric }

func (e emitter) plain(d *metrics.Desc, kind metrics.ValueType, value float64, labels ...string) {
	e.ch <- metrics.NewLazyConstMetric(d, kind, value, labels...)
}

// at tells when the value was measured, for it may be some seconds old.
func (e emitter) at(when time.Time, d *metrics.Desc, kind metrics.ValueType, value float64, labels ...string) {
	e.ch <- metrics.NewLazyMetricWithTimestamp(when, metrics.NewLazyConstMetric(d, kind, value, labels...))
}
