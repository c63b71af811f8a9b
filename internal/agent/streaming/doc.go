// Package streaming is the node's own API, the one kubelets have: logs, exec, attach, port-forward,
// the list of pods, statistics, metrics, health and configuration, over HTTPS. The API server calls it for kubectl; internal/agent
// runs it.
//
// Whoever calls proves who they are by a client certificate of the cluster's CA or a token, and the
// API server says what they may do (as the kubelet's webhook mode: subresources of nodes). Without
// such an answer nothing is served.
//
// It decides nothing about pods: it looks containers up, and connects the caller to the runtime's
// own streams or to a log file.
package streaming
