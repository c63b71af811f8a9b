package pods

import (
	"context"
	"fmt"
	"slices"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/everynode/everynode/internal/agent/cri"
	"github.com/everynode/everynode/internal/decide/podlife"
)

// observeTimeout bounds a look at the runtime: it answers in milliseconds or not at all.
const observeTimeout = 10 * time.Second

// observe reads what the runtime has of the pod into the facts.
func (w *worker) observe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(cri.Quiet(ctx), observeTimeout)
	defer cancel()
	sandboxes, err := w.listSandboxes(ctx)
	if err != nil {
		return fmt.Errorf("list sandboxes: %w", err)
	}
	containers, err := w.listContainers(ctx)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	w.facts.Sandboxes, w.facts.Containers = sandboxes, containers
	w.stale, w.blind = false, false
	w.settleExits()
	w.register()
	return nil
}

func (w *worker) listSandboxes(ctx context.Context) ([]podlife.Sandbox, error) {
	list, err := w.m.o.Runtime.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{LabelSelector: byUID(w.uid)})
	if err != nil {
		return nil, err
	}
	known := map[string]podlife.Sandbox{}
	for _, s := range w.facts.Sandboxes {
		known[s.ID] = s
	}
	var out []podlife.Sandbox
	for _, item := range list {
		s := toSandbox(item)
		s.IPs = known[s.ID].IPs
		if s.Ready && len(s.IPs) == 0 && !w.facts.Pod.Spec.HostNetwork {
			if s.IPs, err = w.m.sandboxIPs(ctx, s.ID); err != nil && !cri.IsNotFound(err) {
				return nil, err
			}
		}
		out = append(out, s)
	}
	return out, nil
}

func (w *worker) listContainers(ctx context.Context) ([]podlife.Container, error) {
	list, err := w.m.o.Runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{LabelSelector: byUID(w.uid)})
	if err != nil {
		return nil, err
	}
	known := map[string]podlife.Container{}
	for _, c := range w.facts.Containers {
		known[c.ID] = c
	}
	var out []podlife.Container
	for _, item := range list {
		c := toContainer(item)
		if old, ok := known[c.ID]; ok && old.State == c.State && c.State != podlife.Unknown {
			out = append(out, old) // what is known of a state does not change
			continue
		} else if ok {
			c.Resources = old.Resources
		} else {
			c.Resources = createdWith(item.Annotations)
			w.doubt(&c)
		}
		r, err := w.m.o.Runtime.ContainerStatus(ctx, c.ID, false)
		switch {
		case cri.IsNotFound(err):
			continue // removed meanwhile
		case err != nil:
			return nil, err
		}
		w.m.exits.complete(r.GetStatus())
		out = append(out, withStatus(c, r.GetStatus()))
	}
	return out, nil
}

// exited is told by containerd that a container's process has ended.
func (w *worker) exited(id string) {
	w.exits[id] = w.m.now()
	w.stale = true
}

// settleExits looks again at containers whose end the CRI plugin has yet to note.
func (w *worker) settleExits() {
	alive := map[string]bool{}
	for _, c := range w.facts.Containers {
		alive[c.ID] = c.State == podlife.Running
	}
	for _, s := range w.facts.Sandboxes {
		alive[s.ID] = s.Ready
	}
	for id, announced := range w.exits {
		if !alive[id] || w.m.now().Sub(announced) > expectExit {
			delete(w.exits, id)
		}
	}
}

// nextExit is when to look for announced exits again: soon at first, for the CRI
// plugin takes some milliseconds to note them, then more rarely.
func (w *worker) nextExit(now time.Time) time.Duration {
	wait := expectExit
	for _, announced := range w.exits {
		wait = min(wait, max(now.Sub(announced)/4, 5*time.Millisecond))
	}
	return min(wait, 250*time.Millisecond)
}

// addContainer takes a container that was just started. A look may have found it
// before it was started, or after it has ended.
func (w *worker) addContainer(c podlife.Container) {
	i := slices.IndexFunc(w.facts.Containers, func(old podlife.Container) bool { return old.ID == c.ID })
	switch {
	case i < 0:
		w.facts.Containers = append(w.facts.Containers, c)
	case w.facts.Containers[i].State != podlife.Exited:
		w.facts.Containers[i] = c
	}
	w.register()
}

// addSandbox takes a sandbox that was just run, unless a look has found it already.
func (w *worker) addSandbox(s podlife.Sandbox) {
	if !slices.ContainsFunc(w.facts.Sandboxes, func(old podlife.Sandbox) bool { return old.ID == s.ID }) {
		w.facts.Sandboxes = append(w.facts.Sandboxes, s)
	}
	w.register()
}

// register makes the pod's sandboxes and containers known for announcements of exits.
func (w *worker) register() {
	ids := make([]string, 0, len(w.facts.Containers)+len(w.facts.Sandboxes))
	for _, c := range w.facts.Containers {
		if c.State == podlife.Running {
			ids = append(ids, c.ID)
		}
	}
	for _, s := range w.facts.Sandboxes {
		if s.Ready {
			ids = append(ids, s.ID)
		}
	}
	for _, id := range w.m.owners.set(w, ids) {
		w.exited(id)
	}
}
