package apiserver

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/klog/v2"
	schedulingapi "k8s.io/kubernetes/pkg/apis/scheduling/v1"
	"k8s.io/kubernetes/pkg/controlplane/controller/systemnamespaces"
	kubeoptions "k8s.io/kubernetes/pkg/kubeapiserver/options"
	ipallocatorcontroller "k8s.io/kubernetes/pkg/registry/core/service/ipallocator/controller"
	portallocatorcontroller "k8s.io/kubernetes/pkg/registry/core/service/portallocator/controller"
	"k8s.io/kubernetes/pkg/util/async"
)

const (
	// repairInterval is how often the address allocators are compared with the Services; upstream's.
	repairInterval = 3 * time.Minute
	// hookTimeout bounds what must be in place before the server is ready.
	hookTimeout = time.Minute
)

// systemNamespaces are made at start and come back when deleted.
func systemNamespaces() []string {
	return []string{metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease, "everynode-system"}
}

// hooks registers what runs when the server has begun to serve; /readyz waits for each to return.
func (a *assembly) hooks() error {
	add := a.server.AddPostStartHookOrDie
	add("bootstrap-roles", a.ensureRoles)
	add("system-namespaces", a.keepNamespaces)
	add("system-priority-classes", a.ensurePriorityClasses)
	add("repair-service-addresses", a.repairServiceAddresses)
	return a.publish()
}

// keepNamespaces makes the system namespaces, then watches over them.
func (a *assembly) keepNamespaces(h genericapiserver.PostStartHookContext) error {
	err := retry(h, func(ctx context.Context) error {
		for _, name := range systemNamespaces() {
			n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
			if _, err := a.client.CoreV1().Namespaces().Create(ctx, n, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
				return fmt.Errorf("namespace %s: %w", name, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	c := systemnamespaces.NewController(systemNamespaces(), a.client, a.informers.Core().V1().Namespaces())
	go c.Run(h.Done())
	return nil
}

// repairServiceAddresses runs upstream's loops that free addresses nobody uses and claim those that Services have.
func (a *assembly) repairServiceAddresses(h genericapiserver.PostStartHookContext) error {
	ips := ipallocatorcontroller.NewRepair(repairInterval, a.client.CoreV1(), a.client.EventsV1(), a.options.ServiceCIDR, a.core.clusterIPs, nil, nil)
	ports := portallocatorcontroller.NewRepair(repairInterval, a.client.CoreV1(), a.client.EventsV1(), kubeoptions.DefaultServiceNodePortRange, a.core.nodePorts)
	var first sync.WaitGroup
	first.Add(2)
	runner := async.NewRunner(
		func(stop chan struct{}) { ips.RunUntil(first.Done, stop) },
		func(stop chan struct{}) { ports.RunUntil(first.Done, stop) },
	)
	runner.Start()
	go func() {
		<-h.Done()
		runner.Stop()
	}()
	repaired := make(chan struct{})
	go func() {
		first.Wait()
		close(repaired)
	}()
	select {
	case <-repaired:
		return nil
	case <-h.Done():
		return nil
	case <-time.After(hookTimeout):
		return errors.New("service addresses could not be checked")
	}
}

// ensurePriorityClasses makes system-node-critical and system-cluster-critical.
func (a *assembly) ensurePriorityClasses(h genericapiserver.PostStartHookContext) error {
	return retry(h, func(ctx context.Context) error {
		for _, c := range schedulingapi.SystemPriorityClasses() {
			if _, err := a.client.SchedulingV1().PriorityClasses().Create(ctx, c, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
				return fmt.Errorf("priority class %s: %w", c.Name, err)
			}
		}
		return nil
	})
}

// retry calls f until it succeeds, the server stops, or hookTimeout passes.
func retry(h genericapiserver.PostStartHookContext, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(h, hookTimeout)
	defer cancel()
	var last error
	err := wait.PollUntilContextCancel(ctx, 100*time.Millisecond, true, func(ctx context.Context) (bool, error) {
		if last = f(ctx); last != nil {
			klog.V(2).InfoS("Not in place yet", "reason", last)
		}
		return last == nil, nil
	})
	if err != nil && h.Err() == nil {
		return last
	}
	return nil
}
