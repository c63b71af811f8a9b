package network

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"

	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/atomicfile"
)

// remembered is what an earlier agent has last applied, or the given if there is nothing of the kind.
// The server may know better, and says so once it is there.
func remembered(file string, otherwise desired) desired {
	if file == "" {
		return otherwise
	}
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return otherwise
	}
	d := otherwise
	if err == nil {
		err = json.Unmarshal(data, &d)
	}
	if err == nil && d.Pods.IsValid() {
		_, err = parsePodCIDR(d.Pods.String())
	}
	if err == nil && (!d.Cluster.IsValid() || !d.Cluster.Addr().Is4() || !d.Service.Is4()) {
		err = errors.New("it lacks a range or an address")
	}
	if err != nil {
		klog.Background().Error(err, "What is remembered of the pod network is unusable; the server will say", "file", file)
		return otherwise
	}
	return d
}

func remember(ctx context.Context, file string, d desired) {
	if file == "" {
		return
	}
	data, err := json.Marshal(d)
	if err == nil {
		_, err = atomicfile.WriteIfChanged(file, data)
	}
	if err != nil {
		klog.FromContext(ctx).Error(err, "The pod network is not remembered: after a reboot, pods will wait for the server")
	}
}
