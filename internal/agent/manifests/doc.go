// Package manifests reads the folder of static pods: pods that a node runs because a file on it says
// so, whatever the API server knows or whether there is one.
//
// A file holds pods in YAML or JSON, one or several documents. Each becomes a pod as the kubelet
// would make it: named NAME-NODE, bound to this node, tolerating NoExecute taints, with the API
// server's defaults, and with a UID that is a hash of what the file says, so that another content is
// another pod. A pod that refers to an API object (a Secret, a ConfigMap, a service account, a claim)
// is refused: a static pod must not need a server.
//
// A file that cannot be read as pods is reported and disturbs nothing: the pods that it held before
// stay as they were, until it is mended or gone.
//
// internal/agent hands the pods on to agent/pods. The package writes nothing and starts nothing.
package manifests
