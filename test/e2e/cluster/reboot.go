package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/everynode/everynode/internal/cli/containerd"
)

// Reboot is a power failure and a start on the same disk: containerd and the agent come up again.
func (n *Node) Reboot(token string) {
	n.t.Helper()
	n.Crash()
	if err := sweep(n.Name); err != nil {
		n.t.Fatalf("%s: %v", n.Name, err)
	}
	// The kernel takes its time with the network of a machine that is gone.
	err := n.cluster.Switch.network(func(h *netlink.Handle) error {
		port, err := h.LinkByName(fmt.Sprintf("port%d", n.number()))
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			return nil
		}
		if err != nil {
			return err
		}
		return h.LinkDel(port)
	})
	if err != nil {
		n.t.Fatalf("%s: unplug: %v", n.Name, err)
	}
	if err := n.boot(); err != nil {
		n.t.Fatalf("%s: reboot: %v", n.Name, err)
	}
	if err := n.cluster.plug(n, n.number()); err != nil {
		n.t.Fatalf("%s: reboot: %v", n.Name, err)
	}
	n.StartContainerd()
	n.StartAgent(token)
}

// number is the node's place among the cluster's, from 1 on.
func (n *Node) number() int { return slices.Index(n.cluster.Nodes, n) + 1 }

// Cut takes the node off the network; the returned function plugs it in again.
func (n *Node) Cut() (mend func()) {
	n.t.Helper()
	set := func(what string, change func(*netlink.Handle, netlink.Link) error) {
		n.t.Helper()
		err := n.cluster.Switch.network(func(h *netlink.Handle) error {
			port, err := h.LinkByName(fmt.Sprintf("port%d", n.number()))
			if err != nil {
				return err
			}
			return change(h, port)
		})
		if err != nil {
			n.t.Fatalf("%s: %s: %v", n.Name, what, err)
		}
	}
	set("cut off", func(h *netlink.Handle, port netlink.Link) error { return h.LinkSetDown(port) })
	return func() {
		set("plug in", func(h *netlink.Handle, port netlink.Link) error { return h.LinkSetUp(port) })
	}
}

// Exec runs a command in the pod's first running container, asking the runtime alone. It returns
// what it prints, and the container's ID.
func (n *Node) Exec(ctx context.Context, podUID string, argv ...string) (out, id string, err error) {
	r, err := containerd.Connect(ctx, n.outside())
	if err != nil {
		return "", "", err
	}
	defer func() { _ = r.Close(ctx) }()
	list, err := r.ListContainers(ctx, &runtimeapi.ContainerFilter{
		LabelSelector: map[string]string{"io.kubernetes.pod.uid": podUID},
		State:         &runtimeapi.ContainerStateValue{State: runtimeapi.ContainerState_CONTAINER_RUNNING},
	})
	if err != nil {
		return "", "", err
	}
	if len(list) == 0 {
		return "", "", fmt.Errorf("%s: pod %s has no running container", n.Name, podUID)
	}
	stdout, stderr, err := r.ExecSync(ctx, list[0].Id, argv, 10*time.Second)
	if err != nil {
		err = fmt.Errorf("%w: %s", err, stderr)
	}
	return string(stdout), list[0].Id, err
}
