package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
)

// report measures and writes until ctx ends.
func (n *Node) report(ctx context.Context) {
	hurryUntil := time.Now().Add(unreadyHurry)
	failures, lastErr := 0, ""
	for {
		ready, err := n.reportOnce(ctx)
		wait := pause(ready, time.Now().Before(hurryUntil))
		if err != nil && ctx.Err() == nil {
			failures++
			wait = max(wait, min(10*time.Second, 100*time.Millisecond<<min(failures, 7)))
			if text := err.Error(); text != lastErr {
				klog.FromContext(ctx).Error(err, "Cannot report this node's status; trying again")
				lastErr = text
			}
		} else {
			failures, lastErr = 0, ""
		}
		select {
		case <-ctx.Done():
			return
		case <-n.poked:
			hurryUntil = time.Now().Add(unreadyHurry)
		case <-time.After(wait):
		}
	}
}

func pause(ready, hurry bool) time.Duration {
	switch {
	case ready:
		return measureEvery
	case hurry:
		return unreadyEvery
	default:
		return unreadyCalm
	}
}

// reportOnce writes the status if it differs from what the server has, or has not been written for
// long. It returns whether the node is ready.
func (n *Node) reportOnce(ctx context.Context) (bool, error) {
	if n.lost.Load() {
		return true, nil
	}
	now := time.Now()
	node := n.Current()
	want, ready, err := n.status(ctx, node, now)
	if err != nil {
		return false, err
	}
	if sameStatus(&node.Status, want) && now.Sub(n.reported) < reportAtLeast {
		return ready, nil
	}
	if !ready && now.Sub(n.started) < startPatience && wasReady(node) {
		return false, nil
	}
	written, err := n.write(ctx, node, want)
	if err != nil {
		return ready, err
	}
	n.reported = now
	n.firstOnce.Do(func() { close(n.first) })
	n.mu.Lock()
	// The watch may have brought a later state already.
	if n.current.ResourceVersion == node.ResourceVersion {
		n.current = written
	}
	n.mu.Unlock()
	n.logReadiness(ctx, ready, want)
	return ready, nil
}

// wasReady: the agent restarts on a node that the server has as ready. Whether it still is will show
// in a moment, and a report in between would have the node tainted for nothing.
func wasReady(node *corev1.Node) bool {
	c := find(node.Status.Conditions, corev1.NodeReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// write updates the status. Somebody else may have changed the Node since; then the newest one is
// fetched and ours put on it.
func (n *Node) write(ctx context.Context, node *corev1.Node, status *corev1.NodeStatus) (*corev1.Node, error) {
	nodes := n.o.Client.CoreV1().Nodes()
	for attempt := 0; ; attempt++ {
		next := &corev1.Node{TypeMeta: node.TypeMeta, ObjectMeta: node.ObjectMeta, Spec: node.Spec, Status: *status}
		written, err := nodes.UpdateStatus(ctx, next, metav1.UpdateOptions{})
		if err == nil || !apierrors.IsConflict(err) || attempt == 5 {
			if apierrors.IsNotFound(err) {
				// The watch is about to say so.
				return node, nil
			}
			return written, err
		}
		newest, err := nodes.Get(ctx, n.o.Name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		if newest.UID != node.UID {
			return nil, errors.New("the Node was replaced by another of this name")
		}
		merged := newest.Status.DeepCopy()
		own(merged, status)
		node, status = newest, merged
	}
}

// own copies onto into what this agent reports, and leaves what others do.
func own(into, from *corev1.NodeStatus) {
	into.Capacity, into.Allocatable, into.Addresses = from.Capacity, from.Allocatable, from.Addresses
	into.DaemonEndpoints, into.NodeInfo = from.DaemonEndpoints, from.NodeInfo
	into.DeclaredFeatures, into.Features = from.DeclaredFeatures, from.Features
	for _, kind := range []corev1.NodeConditionType{corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure, corev1.NodeNetworkUnavailable, corev1.NodeReady} {
		if c := find(from.Conditions, kind); c != nil {
			into.Conditions = replace(into.Conditions, *c)
		}
	}
}

func find(list []corev1.NodeCondition, kind corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range list {
		if list[i].Type == kind {
			return &list[i]
		}
	}
	return nil
}

func replace(list []corev1.NodeCondition, c corev1.NodeCondition) []corev1.NodeCondition {
	if have := find(list, c.Type); have != nil {
		*have = c
		return list
	}
	return append(list, c)
}

// status is what the Node's status should be now.
func (n *Node) status(ctx context.Context, node *corev1.Node, now time.Time) (*corev1.NodeStatus, bool, error) {
	capacity, err := n.machine.capacity()
	if err != nil {
		return nil, false, err
	}
	m := n.measure(ctx, node, now)
	status := node.Status.DeepCopy()
	status.Capacity, status.Allocatable = capacity, n.o.Allocatable(capacity)
	status.Addresses = n.addresses()
	status.DaemonEndpoints.KubeletEndpoint.Port = int32(n.o.Port)
	status.NodeInfo = n.machine.info(n.version)
	status.DeclaredFeatures = declaredFeatures()
	status.Features = &corev1.NodeFeatures{SupplementalGroupsPolicy: new(n.strictGroups)}
	status.Conditions = conditions(status.Conditions, m, now)
	ready := find(status.Conditions, corev1.NodeReady)
	// Ready without a range is not what most wait for: keep looking for it closely.
	return status, ready.Status == corev1.ConditionTrue && (m.podCIDR != "" || m.waited > rangePatience), nil
}

func (n *Node) measure(ctx context.Context, node *corev1.Node, now time.Time) measurement {
	m := measurement{podCIDR: node.Spec.PodCIDR, waited: now.Sub(n.started), network: n.o.NetworkReady()}
	seen, err := n.runtimeNetwork(ctx)
	m.runtime = err
	if m.network == nil {
		m.network = seen
	}
	m.pressure, m.shuttingDown = n.o.Pressure(ctx), n.o.ShuttingDown()
	return m
}

// runtimeNetwork asks the runtime how it is: the error is its own state, network is what it says of
// the pod network.
func (n *Node) runtimeNetwork(ctx context.Context) (network, err error) {
	ctx, cancel := context.WithTimeout(ctx, measureTimeout)
	defer cancel()
	if !n.versionKnown {
		v, err := n.o.Runtime.Version(ctx, "v1")
		if err != nil {
			return nil, err
		}
		n.version, n.versionKnown = v.RuntimeName+"://"+v.RuntimeVersion, true
	}
	status, err := n.o.Runtime.Status(ctx, false)
	if err != nil {
		// It may come back as another version.
		n.versionKnown = false
		return nil, err
	}
	n.strictGroups = status.GetFeatures().GetSupplementalGroupsPolicy()
	if err := unmet(status, runtimeapi.RuntimeReady); err != nil {
		return nil, err
	}
	return unmet(status, runtimeapi.NetworkReady), nil
}

func unmet(status *runtimeapi.StatusResponse, kind string) error {
	for _, c := range status.GetStatus().GetConditions() {
		if c.Type == kind && !c.Status {
			return fmt.Errorf("%s=false reason:%s message:%s", kind, c.Reason, c.Message)
		}
	}
	return nil
}

// sameStatus ignores heartbeat times.
func sameStatus(a, b *corev1.NodeStatus) bool {
	return equality.Semantic.DeepEqual(withoutHeartbeats(a), withoutHeartbeats(b))
}

func withoutHeartbeats(s *corev1.NodeStatus) *corev1.NodeStatus {
	s = s.DeepCopy()
	for i := range s.Conditions {
		s.Conditions[i].LastHeartbeatTime = metav1.Time{}
	}
	return s
}

func (n *Node) logReadiness(ctx context.Context, ready bool, status *corev1.NodeStatus) {
	if ready == n.wasReady {
		return
	}
	n.wasReady = ready
	c := find(status.Conditions, corev1.NodeReady)
	klog.FromContext(ctx).Info("Reported readiness", "ready", ready, "message", c.Message, "afterStart", time.Since(n.started).Round(time.Millisecond))
}
