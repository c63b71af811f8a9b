// Package agent runs one node of the fleet.
//
// It assembles the parts below it and owns none of their decisions: identity (who this node is to
// the server), the container runtime, node (the Node object and its heartbeat), network (CNI
// configuration, routes, masquerade, the way to the API server), volumes, pods (what runs) and
// streaming (logs, exec, attach, port-forward). internal/cli calls Run; nothing else does.
//
// It never stops a container because it stops itself: what runs keeps running, and the next start
// finds it again by the labels the runtime keeps.
package agent

import (
	"context"
	"errors"
)

// Run is the node agent, from its options to the end of ctx. It returns nil when ctx ended, and an
// error that says what to do when this machine, the options or the server do not allow a node here.
func Run(ctx context.Context, o Options) error {
	o.setDefaults()
	if err := o.Validate(); err != nil {
		return err
	}
	return errors.New("not assembled yet")
}
