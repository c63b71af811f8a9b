// Package daemonset is the shell around the DaemonSet machine of internal/decide/daemonset: it watches,
// feeds facts in, performs the actions that come out, and reports how they went.
package daemonset
