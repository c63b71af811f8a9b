package daemonset

import (
	"time"

	machine "github.com/everynode/everynode/internal/decide/daemonset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
)

// writeStatus stores a status. The machine hands out one at a time, so changes that come meanwhile go into the
// next. The write is conditional on the version that it is based on, for it carries metadata too.
func (c *Controller) writeStatus(d *daemon, status machine.Status) {
	ds := d.ds.DeepCopy()
	status.Write(&ds.Status)
	ctx := c.writeContext(time.Now())
	c.after(func() func() {
		stored, err := c.o.Writer.UpdateDaemonSetStatus(ctx, ds)
		worked := err == nil
		if apierrors.IsConflict(err) {
			stored, err = c.o.Client.AppsV1().DaemonSets(ds.Namespace).Get(ctx, ds.Name, metav1.GetOptions{})
		}
		if err != nil && !apierrors.IsNotFound(err) && c.ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "Could not write the status of a DaemonSet; trying again", "daemonset", klog.KObj(ds))
		}
		return func() {
			if err == nil && stored.UID == ds.UID && c.sets[ds.UID] == d {
				c.setDaemonSet(stored)
			}
			d.set.StatusDone(worked, time.Now())
			c.enqueue(d)
		}
	})
}
