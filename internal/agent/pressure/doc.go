// Package pressure keeps this node from running out of memory, disk and process ids: it measures
// what is left, says which conditions hold, first removes what no pod needs, and then has pods leave.
//
//	measure ──> decide/eviction ──> conditions ─> agent/node reports them, agent/pods refuses pods
//	                    └─> images and ended containers go ─> still short: one pod goes, then look again
//
// What each pod uses is measured only when it matters: under pressure, and where a pod has a limit
// on files. internal/agent makes one Guard.
package pressure
