package objects

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PersistentVolumeClaim reads a claim that a pod of this node uses. Claims and
// volumes are read when a pod starts, not followed: they do not change under it.
func (c *Cache) PersistentVolumeClaim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	var pvc *corev1.PersistentVolumeClaim
	err := untilBound(ctx, func() (err error) {
		pvc, err = c.client.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, name, metav1.GetOptions{})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("PersistentVolumeClaim %s/%s: %w", namespace, name, err)
	}
	return pvc, nil
}

// PersistentVolume reads the volume that such a claim is bound to.
func (c *Cache) PersistentVolume(ctx context.Context, name string) (*corev1.PersistentVolume, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	var pv *corev1.PersistentVolume
	err := untilBound(ctx, func() (err error) {
		pv, err = c.client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("PersistentVolume %s: %w", name, err)
	}
	return pv, nil
}
