package daemonset

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	machine "github.com/everynode/everynode/internal/decide/daemonset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
)

// claim adopts and releases pods. Before anything is adopted the DaemonSet is read live, once for all: one that
// is being deleted with its pods orphaned must not take them back (kubernetes#42639).
func (c *Controller) claim(d *daemon, claims []machine.Claim) {
	ds, ctx := d.ds, c.writeContext(time.Now())
	mayAdopt := sync.OnceValue(func() error { return c.recheck(ctx, ds) })
	for _, x := range claims {
		c.start(d, func(ctx context.Context) func() {
			patch := ownerPatch(ds, x.UID)
			if x.Release {
				patch = releasePatch(ds, x.UID)
			} else if err := mayAdopt(); err != nil {
				klog.FromContext(ctx).V(2).Info("Not adopting pods", "daemonset", klog.KObj(ds), "err", err)
				return func() { d.set.ClaimFailed(x.Name, x.UID, time.Now()) }
			}
			_, err := c.o.Client.CoreV1().Pods(ds.Namespace).Patch(ctx, x.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
			// NotFound: it is gone. Invalid: another UID has the name, or another controller was faster. The watch
			// will show either.
			if err == nil || apierrors.IsNotFound(err) || apierrors.IsInvalid(err) {
				return func() {}
			}
			klog.FromContext(ctx).V(2).Info("Could not change the owner of a pod", "pod", klog.KRef(ds.Namespace, x.Name), "release", x.Release, "err", err)
			return func() { d.set.ClaimFailed(x.Name, x.UID, time.Now()) }
		})
	}
}

// recheck reads the DaemonSet past all caches.
func (c *Controller) recheck(ctx context.Context, ds *daemonSet) error {
	live, err := c.o.Client.AppsV1().DaemonSets(ds.Namespace).Get(ctx, ds.Name, metav1.GetOptions{})
	switch {
	case err != nil:
		return fmt.Errorf("read DaemonSet %s/%s before adopting: %w", ds.Namespace, ds.Name, err)
	case live.UID != ds.UID:
		return fmt.Errorf("DaemonSet %s/%s with UID %s is gone", ds.Namespace, ds.Name, ds.UID)
	case live.DeletionTimestamp != nil:
		return fmt.Errorf("DaemonSet %s/%s is being deleted", ds.Namespace, ds.Name)
	}
	return nil
}

// ownerPatch makes the DaemonSet the controller of an object; the API refuses if its UID is another, or if it
// has a controller.
func ownerPatch(ds *daemonSet, uid types.UID) []byte {
	return mustMarshal(map[string]any{"metadata": map[string]any{
		"uid":             uid,
		"ownerReferences": []metav1.OwnerReference{*metav1.NewControllerRef(ds, machine.Kind)},
	}})
}

// releasePatch takes the DaemonSet out of an object's owners.
func releasePatch(ds *daemonSet, uid types.UID) []byte {
	return mustMarshal(map[string]any{"metadata": map[string]any{
		"uid":             uid,
		"ownerReferences": []any{map[string]any{"$patch": "delete", "uid": ds.UID}},
	}})
}

// mustMarshal is for values that cannot fail: maps of strings and API types.
func mustMarshal(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
