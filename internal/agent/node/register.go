package node

import (
	"context"
	"fmt"
	"maps"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/component-helpers/apimachinery/lease"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
)

// joinAnnotation names the certificate request that a Node's name was reserved for; the server sets
// it when it lets an agent join.
const joinAnnotation = "everynode.io/join-csr"

// The lease's times are the kubelet's: the control plane gives a node 40 s.
const (
	leaseDuration = 40 * time.Second
	leaseRenew    = 10 * time.Second
)

// register gets or makes the Node and sets its labels. It tries until it succeeds or ctx ends; what
// keeps it from registering is logged once per reason.
func (n *Node) register(ctx context.Context) error {
	backoff := wait.Backoff{Duration: 100 * time.Millisecond, Cap: 10 * time.Second, Steps: 100, Factor: 2, Jitter: 0.5}
	last := ""
	for {
		node, err := n.ensure(ctx)
		if err == nil {
			n.mu.Lock()
			n.current, n.joinCSR = node, node.Annotations[joinAnnotation]
			n.mu.Unlock()
			klog.FromContext(ctx).Info("Registered this node", "after", time.Since(n.started).Round(time.Millisecond))
			n.o.OnNode(node)
			return nil
		}
		if text := err.Error(); text != last {
			klog.FromContext(ctx).Error(err, "Cannot register this node yet; trying again")
			last = text
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("register node %s: %w", n.o.Name, context.Cause(ctx))
		case <-time.After(backoff.Step()):
		}
	}
}

// ensure returns the Node with the labels it must have. The Node often exists without any: the
// server reserves a name by making it.
func (n *Node) ensure(ctx context.Context) (*corev1.Node, error) {
	nodes := n.o.Client.CoreV1().Nodes()
	node, err := nodes.Get(ctx, n.o.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		node, err = nodes.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.o.Name, Labels: n.labels(nil)}}, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) {
			return nil, fmt.Errorf("node %s was made by somebody else in this moment: %w", n.o.Name, err)
		}
		return node, err
	}
	if err != nil {
		return nil, err
	}
	labels := n.labels(node.Labels)
	if maps.Equal(labels, node.Labels) {
		return node, nil
	}
	node = node.DeepCopy()
	node.Labels = labels
	return nodes.Update(ctx, node, metav1.UpdateOptions{})
}

// labels are the labels of have with this node's own on top. Labels that an earlier start set and
// this one does not stay: the kubelet does the same, and an administrator may rely on them.
func (n *Node) labels(have map[string]string) map[string]string {
	labels := maps.Clone(have)
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, n.o.Labels)
	maps.Copy(labels, ownLabels(n.o.Name))
	return labels
}

// startLease starts the heartbeat of the Node as it is now. It ends with ctx or when the Node is
// gone, and is started anew for a Node that came back: its lease then belongs to the new one.
func (n *Node) startLease(ctx context.Context) {
	ctx, n.stopLease = context.WithCancel(ctx)
	node := n.Current()
	owner := metav1.OwnerReference{APIVersion: corev1.SchemeGroupVersion.String(), Kind: "Node", Name: node.Name, UID: node.UID}
	own := func(l *coordinationv1.Lease) error {
		l.OwnerReferences = []metav1.OwnerReference{owner}
		return nil
	}
	n.tasks.Go(func() {
		lease.NewController(clock.RealClock{}, n.o.Client, n.o.Name, int32(leaseDuration/time.Second), nil, leaseRenew,
			n.o.Name, corev1.NamespaceNodeLease, own).Run(ctx)
	})
}
