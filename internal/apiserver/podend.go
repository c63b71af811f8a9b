package apiserver

import (
	"context"
	"errors"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/util/dryrun"
	api "k8s.io/kubernetes/pkg/apis/core"
	podstore "k8s.io/kubernetes/pkg/registry/core/pod/storage"
	"k8s.io/utils/ptr"
)

// podKind is upstream's registry of pods, but for the last delete of a pod: the one without grace, by which its node
// says that all of it has ended. Upstream first stores that the grace period is over and then deletes, which is two
// writes and two events, to everybody who watches pods, for the end of every pod. Here it is one of each.
type podKind struct{ *podstore.REST }

// errNotMarked sends a delete back to the way it usually takes.
var errNotMarked = errors.New("the pod is not marked for deletion, or something holds it")

// Delete implements rest.GracefulDeleter.
func (k podKind) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc, o *metav1.DeleteOptions) (runtime.Object, bool, error) {
	if last(o) {
		if pod, err := k.deleteMarked(ctx, name, validate, o); err == nil {
			return pod, true, nil
		} // whatever is in the way, upstream finds it again and has the right words for it
	}
	return k.REST.Delete(ctx, name, validate, o)
}

func last(o *metav1.DeleteOptions) bool {
	return o != nil && ptr.Equal(o.GracePeriodSeconds, ptr.To[int64](0)) && !dryrun.IsDryRun(o.DryRun) &&
		o.PropagationPolicy == nil && o.OrphanDependents == nil //nolint:staticcheck // clients may still send it
}

// deleteMarked deletes a pod that is marked for deletion already and has no finalizers.
func (k podKind) deleteMarked(ctx context.Context, name string, validate rest.ValidateObjectFunc, o *metav1.DeleteOptions) (runtime.Object, error) {
	key, err := k.KeyFunc(ctx, name)
	if err != nil {
		return nil, err
	}
	only := &storage.Preconditions{}
	if o.Preconditions != nil {
		only.UID, only.ResourceVersion = o.Preconditions.UID, o.Preconditions.ResourceVersion
	}
	pod := &api.Pod{}
	err = k.Storage.Delete(ctx, key, pod, only, func(ctx context.Context, obj runtime.Object) error {
		if p, ok := obj.(*api.Pod); !ok || p.DeletionTimestamp == nil || len(p.Finalizers) > 0 {
			return errNotMarked
		}
		return validate(ctx, obj)
	}, false, nil, storage.DeleteOptions{})
	if err != nil {
		return nil, err
	}
	pod.DeletionGracePeriodSeconds = ptr.To[int64](0) // the answer says what upstream's does
	return pod, nil
}
