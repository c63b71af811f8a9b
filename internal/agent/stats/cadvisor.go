package stats

import (
	"net/http"
	"runtime"

	"k8s.io/component-base/metrics"
)

// cadvisorLabels tell whose a value is: of a container, of a pod (container is empty), of all pods
// or of the machine (pod is empty too). Dashboards choose by them.
var cadvisorLabels = []string{"container", "id", "image", "name", "namespace", "pod"}

// The names that dashboards of cAdvisor's metrics use most.
// https://github.com/google/cadvisor/blob/master/docs/storage/prometheus.md
var (
	cadvisorCPU        = cadvisor("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", "cpu")
	cadvisorUsage      = cadvisor("container_memory_usage_bytes", "Current memory usage in bytes, including all memory regardless of when it was accessed")
	cadvisorWorkingSet = cadvisor("container_memory_working_set_bytes", "Current working set in bytes.")
	cadvisorRSS        = cadvisor("container_memory_rss", "Size of RSS in bytes.")
	cadvisorSwap       = cadvisor("container_memory_swap", "Container swap usage in bytes.")
	cadvisorLimit      = cadvisor("container_spec_memory_limit_bytes", "Memory limit for the container.")
	cadvisorThreads    = cadvisor("container_threads", "Number of threads running inside the container")
	cadvisorStart      = cadvisor("container_start_time_seconds", "Start time of the container since unix epoch in seconds.")
	cadvisorSeen       = cadvisor("container_last_seen", "Last time a container was seen by the exporter")
	cadvisorRxBytes    = cadvisor("container_network_receive_bytes_total", "Cumulative count of bytes received", "interface")
	cadvisorRxErrors   = cadvisor("container_network_receive_errors_total", "Cumulative count of errors encountered while receiving", "interface")
	cadvisorTxBytes    = cadvisor("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", "interface")
	cadvisorTxErrors   = cadvisor("container_network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", "interface")
	cadvisorCores      = describe("machine_cpu_cores", "Number of logical CPU cores.", nil, metrics.ALPHA)
	cadvisorMemory     = describe("machine_memory_bytes", "Amount of memory installed on the machine.", nil, metrics.ALPHA)
	cadvisorError      = describe("container_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise", nil, metrics.ALPHA)
)

func cadvisor(name, help string, more ...string) *metrics.Desc {
	return describe(name, help, append(more[:len(more):len(more)], cadvisorLabels...), metrics.ALPHA)
}

// CAdvisorMetrics serves /metrics/cadvisor: what is commonly used of it.
func (p *Provider) CAdvisorMetrics() http.Handler {
	return handler(&cadvisorCollector{provider: p})
}

type cadvisorCollector struct {
	metrics.BaseStableCollector
	provider *Provider
}

// DescribeWithStability implements metrics.StableCollector.
func (c *cadvisorCollector) DescribeWithStability(ch chan<- *metrics.Desc) {
	for _, d := range []*metrics.Desc{
		cadvisorCPU, cadvisorUsage, cadvisorWorkingSet, cadvisorRSS, cadvisorSwap, cadvisorLimit, cadvisorThreads, cadvisorStart, cadvisorSeen,
		cadvisorRxBytes, cadvisorRxErrors, cadvisorTxBytes, cadvisorTxErrors, cadvisorCores, cadvisorMemory, cadvisorError,
	} {
		ch <- d
	}
}

// CollectWithStability implements metrics.StableCollector.
func (c *cadvisorCollector) CollectWithStability(ch chan<- metrics.Metric) {
	out := emitter{ch}
	s, failed := c.provider.collect()
	out.plain(cadvisorError, metrics.GaugeValue, failed)
	if s == nil {
		return
	}
	out.plain(cadvisorCores, metrics.GaugeValue, float64(runtime.NumCPU()))
	out.plain(cadvisorMemory, metrics.GaugeValue, float64(s.node.memory.Capacity))
	out.cadvisor(s, use{cpu: s.node.cpu, memory: s.node.memory.Memory}, "", "/", "", "", "", "")
	if s.all != nil {
		out.cadvisor(s, *s.all, "", s.all.cpu.cgroup, "", "", "", "")
	}
	for _, pod := range s.pods {
		of := []string{"", pod.cpu.cgroup, "", "", pod.pod.Namespace, pod.pod.Name}
		out.cadvisor(s, pod.use, of...)
		c.network(out, pod, of)
		for _, c := range pod.containers {
			labels := []string{c.name, c.cpu.cgroup, c.image, c.id, pod.pod.Namespace, pod.pod.Name}
			out.cadvisor(s, c.use, labels...)
			out.plain(cadvisorStart, metrics.GaugeValue, seconds(c.started), labels...)
		}
	}
}

func (e emitter) cadvisor(s *snapshot, u use, labels ...string) {
	e.at(u.cpu.at, cadvisorCPU, metrics.CounterValue, u.cpu.total.Seconds(), append([]string{"total"}, labels...)...)
	for d, value := range map[*metrics.Desc]uint64{
		cadvisorUsage: u.memory.Usage, cadvisorWorkingSet: u.memory.WorkingSet, cadvisorRSS: u.memory.RSS, cadvisorSwap: u.memory.Swap,
		cadvisorLimit: u.memory.Limit, cadvisorThreads: u.processes,
	} {
		e.at(s.at, d, metrics.GaugeValue, float64(value), labels...)
	}
	e.at(s.at, cadvisorSeen, metrics.GaugeValue, float64(s.at.Unix()), labels...)
}

func (c *cadvisorCollector) network(out emitter, pod podUse, labels []string) {
	n := c.provider.podNetwork(pod)
	if n == nil {
		return
	}
	for _, i := range n.Interfaces {
		for d, value := range map[*metrics.Desc]*uint64{
			cadvisorRxBytes: i.RxBytes, cadvisorRxErrors: i.RxErrors, cadvisorTxBytes: i.TxBytes, cadvisorTxErrors: i.TxErrors,
		} {
			out.at(n.Time.Time, d, metrics.CounterValue, float64(*value), append([]string{i.Name}, labels...)...)
		}
	}
}
