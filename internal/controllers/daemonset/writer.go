package daemonset

import (
	"context"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Writer performs the three writes that a rollout consists of. They are apart from the client because
// inside our own server they go straight to the registries, with admission and audit but without HTTP.
//
// The objects passed in are only read: all pods of a template share what they have in common. Errors are those of the API
// (k8s.io/apimachinery/pkg/api/errors).
type Writer interface {
	CreatePod(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error)
	DeletePod(ctx context.Context, namespace, name string, o metav1.DeleteOptions) error
	UpdateDaemonSetStatus(ctx context.Context, ds *appsv1.DaemonSet) (*appsv1.DaemonSet, error)
}

// ClientWriter is the Writer for a cluster that is not ours: plain API calls.
type ClientWriter struct {
	Client kubernetes.Interface
}

var _ Writer = ClientWriter{}

// CreatePod creates the pod in its namespace.
func (w ClientWriter) CreatePod(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	return w.Client.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
}

// DeletePod deletes the pod under the preconditions in o.
func (w ClientWriter) DeletePod(ctx context.Context, namespace, name string, o metav1.DeleteOptions) error {
	return w.Client.CoreV1().Pods(namespace).Delete(ctx, name, o)
}

// UpdateDaemonSetStatus writes ds.Status if ds.ResourceVersion is still the stored one.
func (w ClientWriter) UpdateDaemonSetStatus(ctx context.Context, ds *appsv1.DaemonSet) (*appsv1.DaemonSet, error) {
	return w.Client.AppsV1().DaemonSets(ds.Namespace).UpdateStatus(ctx, ds, metav1.UpdateOptions{})
}
