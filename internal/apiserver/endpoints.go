package apiserver

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/client-go/kubernetes"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/controlplane/controller/kubernetesservice"
	"k8s.io/kubernetes/pkg/controlplane/reconcilers"
)

const (
	// Each server renews its endpoint every endpointInterval; one that has not for endpointTTL is taken out.
	endpointInterval = 10 * time.Second
	endpointTTL      = 15 * time.Second
	// endpointRemoval bounds how long a stopping server tries to take its own out.
	endpointRemoval = time.Second
)

// publish keeps Service default/kubernetes, and this server's address in its endpoints.
func (a *assembly) publish() error {
	reconciler, err := a.endpointReconciler()
	if err != nil {
		return err
	}
	_, port, err := a.generic.SecureServing.HostPort()
	if err != nil {
		return err
	}
	c := kubernetesservice.New(kubernetesservice.Config{
		PublicIP:           a.generic.PublicAddress,
		EndpointReconciler: reconciler,
		EndpointInterval:   endpointInterval,
		ServiceIP:          a.options.serviceIP(),
		ServicePort:        443,
		PublicServicePort:  port,
	}, a.client, a.informers.Core().V1().Services())
	a.server.AddPostStartHookOrDie("kubernetes-service", func(h genericapiserver.PostStartHookContext) error {
		c.Start(h.Done())
		return nil
	})
	return a.server.AddPreShutdownHook("kubernetes-service", func() error {
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.Stop()
		}()
		select {
		case <-done:
		case <-time.After(endpointRemoval): // it runs out by itself
		}
		return nil
	})
}

func (a *assembly) endpointReconciler() (reconcilers.EndpointReconciler, error) {
	if a.options.AdvertiseIP == nil {
		return &unpublished{client: a.client, alone: a.options.Store.Embedded()}, nil
	}
	config, err := a.rawStorage(api.Resource("apiServerIPInfo"))
	if err != nil {
		return nil, err
	}
	leases, err := reconcilers.NewLeases(config, "/masterleases/", endpointTTL)
	if err != nil {
		return nil, err
	}
	adapter := reconcilers.NewEndpointsAdapter(a.client.CoreV1(), a.client.DiscoveryV1())
	return reconcilers.NewLeaseEndpointReconciler(adapter, leases), nil
}

// unpublished is the reconciler of a server that only this machine can reach: it publishes nothing. If it is the only
// server it takes out what an earlier start, with an address to advertise, has left.
type unpublished struct {
	client  kubernetes.Interface
	alone   bool
	cleaned bool
	stopped atomic.Bool
}

// ReconcileEndpoints is called by one goroutine, every endpointInterval.
func (u *unpublished) ReconcileEndpoints(name string, _ net.IP, _ []corev1.EndpointPort, _ bool) error {
	if !u.alone || u.cleaned {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), endpointInterval)
	defer cancel()
	err := u.client.CoreV1().Endpoints(metav1.NamespaceDefault).Delete(ctx, name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	err = u.client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).Delete(ctx, name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	u.cleaned = true
	return nil
}

// RemoveEndpoints finds none at the start, which is how upstream's controller knows that the last stop was clean, and
// is content at the stop.
func (u *unpublished) RemoveEndpoints(string, net.IP, []corev1.EndpointPort) error {
	if u.stopped.Load() {
		return nil
	}
	return storage.NewKeyNotFoundError("masterleases", 0)
}

// StopReconciling tells a stop from a start.
func (u *unpublished) StopReconciling() { u.stopped.Store(true) }

// Destroy has nothing to clean up.
func (u *unpublished) Destroy() {}
