package agent

import (
	"context"

	"github.com/everynode/everynode/internal/agent/offline"
	"github.com/everynode/everynode/internal/agent/pods"
)

// assembleOffline makes what remembers DaemonSets' pods, or erases what an earlier agent remembered.
func (p *parts) assembleOffline() error {
	if !p.o.OfflinePods {
		return offline.Erase(p.o.offlineDir())
	}
	record, err := offline.Open(p.o.offlineDir(), p.identity.Holder)
	if err != nil {
		return err
	}
	p.offline = offline.NewKeeper(record, p.objects)
	return nil
}

// keeper is what pods are remembered by; nil if they are not.
func (p *parts) keeper() pods.Keeper {
	if p.offline == nil {
		return nil // not a nil pointer in an interface
	}
	return p.offline
}

func (p *parts) runOffline(ctx context.Context) error {
	if p.offline == nil {
		return nil
	}
	return p.offline.Run(ctx)
}
