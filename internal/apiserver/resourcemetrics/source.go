package resourcemetrics

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	nodeutil "k8s.io/kubernetes/pkg/util/node"
)

// largestSummary bounds what is read of one node's answer: a pod takes about a kilobyte of it.
const largestSummary = 16 << 20

// Usage is what a node and its pods used when it was last asked.
type Usage struct {
	Node Sample
	Pods map[types.NamespacedName]PodUsage
}

// PodUsage is what the containers of a pod used.
type PodUsage struct {
	// UID tells a pod from another of its name.
	UID        types.UID
	Containers []ContainerUsage
}

// ContainerUsage is what a container used.
type ContainerUsage struct {
	Name string
	Sample
}

// Sample is use at a time.
type Sample struct {
	At time.Time
	// NanoCores is processor time per second, in billionths of a processor.
	NanoCores uint64
	// WorkingSet is memory in bytes.
	WorkingSet uint64
}

// Source asks nodes for what they use.
type Source struct {
	Client *http.Client
	// Port is where a node's API listens if its Node says nothing else.
	Port int
	// Addresses are the kinds of addresses by which nodes are reached, the best first.
	Addresses []corev1.NodeAddressType
}

// Ask fetches what the node and its pods use.
func (s *Source) Ask(ctx context.Context, node *corev1.Node) (*Usage, error) {
	host, err := nodeutil.GetPreferredNodeAddress(node, s.Addresses)
	if err != nil {
		return nil, err
	}
	port := int(node.Status.DaemonEndpoints.KubeletEndpoint.Port)
	if port <= 0 {
		port = s.Port
	}
	at := url.URL{Scheme: "https", Host: net.JoinHostPort(host, strconv.Itoa(port)), Path: "/stats/summary", RawQuery: "only_cpu_and_memory=true"}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), http.NoBody)
	if err != nil {
		return nil, err
	}
	response, err := s.Client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, largestSummary))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", at.Redacted(), err)
	}
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s: %.200s", at.Redacted(), response.Status, body)
	}
	var summary statsapi.Summary
	if err := json.Unmarshal(body, &summary); err != nil {
		return nil, fmt.Errorf("%s: %w", at.Redacted(), err)
	}
	return digest(&summary)
}

var errNoUsage = errors.New("the node's statistics lack its own CPU or memory")

// digest keeps what is served of a summary. Containers that started a moment ago have no rate yet.
func digest(summary *statsapi.Summary) (*Usage, error) {
	u := &Usage{Pods: make(map[types.NamespacedName]PodUsage, len(summary.Pods))}
	var ok bool
	if u.Node, ok = sample(summary.Node.CPU, summary.Node.Memory); !ok {
		return nil, errNoUsage
	}
	for i := range summary.Pods {
		pod := &summary.Pods[i]
		p := PodUsage{UID: types.UID(pod.PodRef.UID)}
		for j := range pod.Containers {
			if s, ok := sample(pod.Containers[j].CPU, pod.Containers[j].Memory); ok {
				p.Containers = append(p.Containers, ContainerUsage{Name: pod.Containers[j].Name, Sample: s})
			}
		}
		if len(p.Containers) > 0 {
			u.Pods[types.NamespacedName{Namespace: pod.PodRef.Namespace, Name: pod.PodRef.Name}] = p
		}
	}
	return u, nil
}

func sample(cpu *statsapi.CPUStats, memory *statsapi.MemoryStats) (Sample, bool) {
	if cpu == nil || cpu.UsageNanoCores == nil || memory == nil || memory.WorkingSetBytes == nil {
		return Sample{}, false
	}
	return Sample{At: cpu.Time.Time, NanoCores: *cpu.UsageNanoCores, WorkingSet: *memory.WorkingSetBytes}, true
}
