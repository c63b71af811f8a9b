// Package agent runs one node of the fleet.
//
// It assembles the parts below it and owns none of their decisions: identity (who this node is to
// the server), the container runtime, node (the Node object and its heartbeat), network (CNI
// configuration, routes, masquerade, the way to the API server), volumes, pods (what runs) and
// streaming (logs, exec, attach, port-forward). internal/cli calls Run; nothing else does.
//
//	identity ──> client ──┬─> node ── podCIDR ──> network ── Ready ──┐
//	                      ├─> services, objects ──> volumes          ├─> pods
//	runtime ──> CRI ──────┼─> images/*.tar, pause image ─────────────┤
//	manifests, offline ───┼──────────────────────────────────────────┘
//	                      └─> serving certificate ──> streaming
//
// The identity may take its time: a server has to be there to join. What needs none begins at once,
// and so do static pods; a request of the client waits for the identity, and fails after a while as
// if the server were away. Only what is of no use before waits for the identity itself.
//
// It never stops a container because it stops itself: what runs keeps running, and the next start
// finds it again by the labels the runtime keeps.
package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/agent/cri"
	"github.com/everynode/everynode/internal/agent/identity"
)

// stopTimeout bounds the time between the end of Run's context and its return.
const stopTimeout = 4 * time.Second

// Run is the node agent, from its options to the end of ctx. It returns nil when ctx ended, and an
// error that says what to do when this machine, the options or the server do not allow a node here.
func Run(ctx context.Context, o Options) error {
	o.setDefaults()
	if err := o.Validate(); err != nil {
		return err
	}
	begun := time.Now()
	hushPending()
	ip, err := checkMachine(o)
	if err != nil {
		return err
	}
	unlock, err := lockDataDir(o.DataDir)
	if err != nil {
		return err
	}
	defer unlock()
	folder, noFolder, err := manifestFolder(o, "/")
	if err != nil {
		return err
	}
	runtime, err := connectRuntime(ctx, o.RuntimeEndpoint)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = runtime.Close(context.WithoutCancel(ctx)) }()
	parts, err := assemble(o, ip, runtime)
	if err != nil {
		return err
	}
	parts.manifests, parts.noManifests = folder, noFolder
	klog.FromContext(ctx).Info("Agent assembled", "node", o.NodeName, "nodeIP", ip, "server", o.Server, "runtime", runtime.Name+"://"+runtime.Version, "after", time.Since(begun).Round(time.Millisecond))
	return parts.run(ctx)
}

// hushPending keeps what Kubernetes' libraries say of every request out of the log as long as the node
// has no identity: that is said once, by whoever obtains it.
func hushPending() {
	log := utilruntime.ErrorHandlers[0]
	utilruntime.ErrorHandlers[0] = func(ctx context.Context, err error, msg string, keysAndValues ...any) {
		if !errors.Is(err, identity.ErrPending) {
			log(ctx, err, msg, keysAndValues...)
		}
	}
}

// runtimePatience is how long a runtime may take to come up, after a boot say.
const runtimePatience = 30 * time.Second

func connectRuntime(ctx context.Context, endpoint string) (*cri.Connection, error) {
	ctx, cancel := context.WithTimeout(ctx, runtimePatience)
	defer cancel()
	runtime, err := cri.Connect(ctx, endpoint)
	if errors.Is(err, cri.ErrNoSocket) && endpoint == DefaultRuntimeEndpoint {
		return nil, fmt.Errorf("%w; install it with: apt-get install %s", err, packages)
	}
	return runtime, err
}

// run lets all parts work until ctx ends or one of them cannot.
func (p *parts) run(ctx context.Context) error {
	group, working := errgroup.WithContext(ctx)
	for _, part := range p.list() {
		group.Go(func() error {
			if err := part.run(working); err != nil && working.Err() == nil {
				return fmt.Errorf("%s: %w", part.name, err)
			}
			return nil
		})
	}
	ended := make(chan error, 1)
	go func() {
		ended <- group.Wait()
		p.close()
	}()
	<-working.Done()
	select {
	case err := <-ended:
		return err
	case <-time.After(stopTimeout):
		klog.FromContext(ctx).Info("Some work did not end in time; it is left as it is", "timeout", stopTimeout)
	}
	if ctx.Err() != nil {
		return nil
	}
	return context.Cause(working)
}
