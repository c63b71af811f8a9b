// Package config reads the agent's configuration file, that of --config:
//
//	apiVersion: everynode.io/v1alpha1
//	kind: AgentConfiguration
//	staticPodPath: /etc/kubernetes/manifests
//
// Settings that the kubelet has too bear the names they have in its KubeletConfiguration
// (https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/). A field that is not
// given is nil, and the flag or its default holds; a flag that is given holds in any case. Which
// Options a field sets is said in one place, agent.Options.Configure.
//
// It only reads and checks; internal/agent and internal/cli call it.
package config
