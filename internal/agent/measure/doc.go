// Package measure reads what this machine and its cgroups use: processor time, memory, file
// systems, process ids and network traffic, from /proc, cgroup v1 or v2 and statfs. The node's
// conditions and eviction (agent/node) and its statistics (agent/stats) are computed from it.
//
// It reads when asked, a few small files a call, and keeps nothing: no rates, no history, no
// goroutine. All sizes are bytes, all processor time is a time.Duration summed over the processors.
// It knows nothing of pods or of the runtime.
//
// Terms are the kubelet's: the working set is what a cgroup uses less its inactive file cache, which
// the kernel can drop at once, and what is available is capacity less working set.
package measure
