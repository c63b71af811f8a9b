package pods

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubetypes "k8s.io/kubelet/pkg/types"

	"github.com/everynode/everynode/internal/agent/manifests"
	"github.com/everynode/everynode/internal/decide/podlife"
)

// Labels and annotations that sandboxes and containers carry, from which all that
// the agent must remember is read back. Those of io.kubernetes are the kubelet's own.
const (
	// nodeLabel marks the sandboxes of this node's agent; others are not touched.
	nodeLabel = "everynode.io/node"
	// staticLabel marks those of static pods, which a list of the API's pods says nothing about.
	staticLabel = "everynode.io/static"

	hashAnnotation          = "io.kubernetes.container.hash"
	restartCountAnnotation  = "io.kubernetes.container.restartCount"
	messagePathAnnotation   = "io.kubernetes.container.terminationMessagePath"
	messagePolicyAnnotation = "io.kubernetes.container.terminationMessagePolicy"
	graceAnnotation         = "io.kubernetes.pod.terminationGracePeriod"
	delayAnnotation         = "everynode.io/restart-delay"
	resourcesAnnotation     = "everynode.io/resources"
)

func (m *Manager) sandboxLabels(pod *corev1.Pod) map[string]string {
	labels := maps.Clone(pod.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[nodeLabel] = m.o.NodeName
	delete(labels, staticLabel) // a user's label must not say so
	return identify(labels, pod)
}

func identify(labels map[string]string, pod *corev1.Pod) map[string]string {
	labels[kubetypes.KubernetesPodNameLabel] = pod.Name
	labels[kubetypes.KubernetesPodNamespaceLabel] = pod.Namespace
	labels[kubetypes.KubernetesPodUIDLabel] = string(pod.UID)
	if manifests.IsStatic(pod) {
		labels[staticLabel] = "true"
	}
	return labels
}

func (m *Manager) containerLabels(pod *corev1.Pod, c *corev1.Container) map[string]string {
	return identify(map[string]string{kubetypes.KubernetesContainerNameLabel: c.Name, nodeLabel: m.o.NodeName}, pod)
}

func containerAnnotations(pod *corev1.Pod, c *corev1.Container, step podlife.Step) map[string]string {
	a := map[string]string{
		hashAnnotation:          strconv.FormatUint(podlife.Hash(c), 16),
		restartCountAnnotation:  strconv.FormatUint(uint64(step.Attempt), 10),
		messagePathAnnotation:   c.TerminationMessagePath,
		messagePolicyAnnotation: string(c.TerminationMessagePolicy),
		delayAnnotation:         step.Delay.String(),
		resourcesAnnotation:     resourcesText(pod, c),
	}
	if g := pod.Spec.TerminationGracePeriodSeconds; g != nil {
		a[graceAnnotation] = strconv.FormatInt(*g, 10)
	}
	return a
}

// byUID selects the sandboxes and containers of one pod.
func byUID(uid types.UID) map[string]string {
	return map[string]string{kubetypes.KubernetesPodUIDLabel: string(uid)}
}

// uidOf is the pod of a sandbox or container of this agent, or "".
func (m *Manager) uidOf(labels map[string]string) types.UID {
	if labels[nodeLabel] != m.o.NodeName {
		return ""
	}
	return types.UID(labels[kubetypes.KubernetesPodUIDLabel])
}

// restored is what is known of a pod that only the runtime still has: enough to
// end it properly.
func restored(sandboxes []*runtimeapi.PodSandbox, containers []*runtimeapi.Container) *corev1.Pod {
	pod := &corev1.Pod{}
	named := func(labels map[string]string) {
		pod.ObjectMeta = metav1.ObjectMeta{
			Name:      labels[kubetypes.KubernetesPodNameLabel],
			Namespace: labels[kubetypes.KubernetesPodNamespaceLabel],
			UID:       types.UID(labels[kubetypes.KubernetesPodUIDLabel]),
		}
	}
	for _, s := range sandboxes {
		named(s.Labels)
	}
	seen := map[string]bool{}
	for _, c := range containers {
		named(c.Labels)
		if name := c.GetMetadata().GetName(); !seen[name] {
			seen[name] = true
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: name})
		}
		if g, err := strconv.ParseInt(c.Annotations[graceAnnotation], 10, 64); err == nil {
			pod.Spec.TerminationGracePeriodSeconds = &g
		}
	}
	return pod
}

// toSandbox translates a sandbox; its addresses come from its status.
func toSandbox(s *runtimeapi.PodSandbox) podlife.Sandbox {
	return podlife.Sandbox{
		ID: s.Id, Attempt: s.GetMetadata().GetAttempt(),
		Ready:   s.State == runtimeapi.PodSandboxState_SANDBOX_READY,
		Created: time.Unix(0, s.CreatedAt),
	}
}

// toContainer translates what a list says of a container.
func toContainer(c *runtimeapi.Container) podlife.Container {
	hash, _ := strconv.ParseUint(c.Annotations[hashAnnotation], 16, 64)
	delay, _ := time.ParseDuration(c.Annotations[delayAnnotation])
	return podlife.Container{
		ID: c.Id, Name: c.GetMetadata().GetName(), SandboxID: c.PodSandboxId,
		Attempt: c.GetMetadata().GetAttempt(), State: toState(c.State),
		Created: time.Unix(0, c.CreatedAt), Hash: hash, Delay: delay,
	}
}

func toState(s runtimeapi.ContainerState) podlife.ContainerState {
	switch s {
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		return podlife.Created
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		return podlife.Running
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		return podlife.Exited
	}
	return podlife.Unknown
}

// withStatus adds what only a container's status says.
func withStatus(c podlife.Container, s *runtimeapi.ContainerStatus) podlife.Container {
	c.State = toState(s.State)
	c.Started, c.Finished = unix(s.StartedAt), unix(s.FinishedAt)
	c.ExitCode, c.Reason, c.Message = s.ExitCode, s.Reason, s.Message
	c.Image, c.ImageRef = s.GetImage().GetImage(), s.ImageRef
	c.Interrupted = interrupted(s)
	if c.State == podlife.Exited {
		if c.Finished.IsZero() {
			c.Finished = c.Created
		}
		if c.Started.IsZero() {
			c.Started = c.Finished // it failed to start
		}
		c.Message = join(c.Message, terminationMessage(s))
	}
	return c
}

// interrupted: the runtime gave the container up while it was starting, because the
// agent that had asked for it, or the runtime itself, went away at that moment. What
// ended well ran, even if nobody was there to note when it began; another exit code may
// be that of runc's own first process in the container.
func interrupted(s *runtimeapi.ContainerStatus) bool {
	switch {
	case s.State != runtimeapi.ContainerState_CONTAINER_EXITED || s.StartedAt != 0:
		return false
	case s.Reason != "StartError":
		return s.ExitCode != 0
	}
	return strings.Contains(s.Message, context.Canceled.Error()) || strings.Contains(s.Message, ": signal: killed")
}

func unix(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos)
}

func join(a, b string) string {
	if a != "" && b != "" {
		return a + ": " + b
	}
	return a + b
}

// podName is how the kubelet names a pod in messages.
func podName(pod *corev1.Pod) string {
	return fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID)
}
