package cri

import (
	"context"
	"fmt"
	"time"

	eventsapi "github.com/containerd/containerd/api/events"
	eventsv1 "github.com/containerd/containerd/api/services/events/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// criNamespace is the containerd namespace in which its CRI plugin works.
const criNamespace = "k8s.io"

// Exit is the end of the main process of a container or sandbox.
type Exit struct {
	ID   string
	Code int32
	At   time.Time
}

// Exits streams containerd's own task exits, which arrive within milliseconds
// where CRI 1.6 offers nothing but lists. It calls exited for every container (or
// sandbox) whose main process ended, and connected once the subscription stands, so that the caller can list what it missed before.
// It returns when ctx ends or the stream breaks; a runtime that is not
// containerd answers codes.Unimplemented.
func Exits(ctx context.Context, endpoint string, connected func(), exited func(Exit)) error {
	conn, err := grpc.NewClient(Normalize(endpoint), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"))
	if err != nil {
		return fmt.Errorf("containerd events on %s: %w", endpoint, err)
	}
	defer conn.Close()
	ctx = metadata.AppendToOutgoingContext(ctx, "containerd-namespace", criNamespace)
	stream, err := eventsv1.NewEventsClient(conn).Subscribe(ctx, &eventsv1.SubscribeRequest{
		Filters: []string{`topic=="/tasks/exit",namespace==` + criNamespace},
	})
	if err != nil {
		return fmt.Errorf("containerd events on %s: %w", endpoint, err)
	}
	connected()
	for {
		envelope, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("containerd events on %s: %w", endpoint, err)
		}
		var exit eventsapi.TaskExit
		if proto.Unmarshal(envelope.GetEvent().GetValue(), &exit) != nil {
			continue
		}
		if exit.GetID() == exit.GetContainerID() { // others are the ends of execs
			exited(Exit{ID: exit.GetContainerID(), Code: int32(exit.GetExitStatus()), At: exit.GetExitedAt().AsTime()})
		}
	}
}
