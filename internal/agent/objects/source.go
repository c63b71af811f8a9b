package objects

import (
	"context"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Source hands out what pods reference. Objects are shared: callers must not
// change them. An object that does not exist is an error for which
// apierrors.IsNotFound holds; whether that matters (optional) is the caller's call.
type Source interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
	// Token returns a token of a service account, from the cache until it has used
	// up 80 % of its life. tr.Spec.BoundObjectRef must name the pod.
	Token(ctx context.Context, namespace, serviceAccount string, tr *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)
}

// Registrar follows the objects that a pod references. Both calls are idempotent
// and return at once.
type Registrar interface {
	Register(pod *corev1.Pod)
	Unregister(pod *corev1.Pod)
	UnregisterUID(uid types.UID)
}

// Notifier tells of objects that came, changed or went.
type Notifier interface {
	// Subscribe calls f after each change until the returned function is called.
	// f must not block.
	Subscribe(f func(Ref)) (cancel func())
}

// PersistentVolumes reads a claim and the volume that is bound to it.
type PersistentVolumes interface {
	PersistentVolumeClaim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error)
	PersistentVolume(ctx context.Context, name string) (*corev1.PersistentVolume, error)
}

// Kind of an object that a pod references.
type Kind string

// The kinds that are watched.
const (
	ConfigMap Kind = "ConfigMap"
	Secret    Kind = "Secret"
)

// Ref names an object that a pod references.
type Ref struct {
	Kind      Kind
	Namespace string
	Name      string
}

// String is "kind namespace/name", as messages show it.
func (r Ref) String() string { return string(r.Kind) + " " + r.Namespace + "/" + r.Name }
