// Package stats tells what this node, its pods and their containers use, in the forms that the
// kubelet's users know: the Summary API (k8s.io/kubelet/pkg/apis/stats/v1alpha1) and the Prometheus
// endpoints /metrics/resource and /metrics/cadvisor. internal/agent makes one Provider; the node's
// API (agent/streaming) serves it, and the server's metrics.k8s.io is computed from it.
//
// It measures when asked and never otherwise: there is no goroutine, and a node nobody asks pays
// nothing. An answer is good for Fresh. Processor use per second is the difference of the last two
// measurements; the first to ask after a long silence waits for a second one, for firstWindow.
//
// What is measured comes from agent/measure, but for what containers write to their own layers,
// which the runtime knows. It changes nothing on the machine.
package stats
