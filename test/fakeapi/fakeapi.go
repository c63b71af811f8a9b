// Package fakeapi runs a controller over a fake API, as a server runs it: a process that begins
// with nothing but what the API has, and that ends whole. Tests of the controllers use it, inside
// synctest bubbles.
package fakeapi

import (
	"context"
	"sync"
	"testing"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
)

// Controller is what is run.
type Controller interface {
	Run(ctx context.Context) error
}

// Run runs a controller until stop is called, which returns when nothing of it is left. An error of the controller
// fails the test.
func Run(t testing.TB, c Controller) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := c.Run(ctx); err != nil {
			t.Errorf("the controller ended: %v", err)
		}
	})
	return func() {
		cancel()
		running.Wait()
	}
}

// Start is Run for a controller that is made over informers, with informers of its own.
func Start[C Controller](t testing.TB, client kubernetes.Interface, build func(informers.SharedInformerFactory) (C, error)) (stop func()) {
	t.Helper()
	factory := informers.NewSharedInformerFactory(client, 0)
	controller, err := build(factory)
	if err != nil {
		t.Fatal(err)
	}
	watching := make(chan struct{})
	factory.Start(watching)
	end := Run(t, controller)
	return func() {
		end()
		close(watching)
		factory.Shutdown()
	}
}
