package upstream

import (
	"fmt"
	"testing"
	"time"

	machine "github.com/everynode/everynode/internal/decide/daemonset"
	"github.com/everynode/everynode/internal/decide/placement"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	fwk "k8s.io/kube-scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/apis/config/latest"
	"k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/names"
	"k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/metrics"
	"pgregory.net/rapid"

	schedulerconfig "k8s.io/kubernetes/pkg/scheduler/apis/config"
)

// TestDirectBinding holds the promise of a pod that is created bound: upstream's scheduler, shown the same node
// with the same pods on it, would have let it there; and a pod that is left to the scheduler for want of room
// would not have been let there. The machine decides with its ledger, as in the product; the scheduler with the
// filters that look at one node.
func TestDirectBinding(t *testing.T) {
	filter := newFilters(t)
	bound, unbound := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		for range 8 {
			ledger := placement.NewLedger()
			set := machine.New(drawDemandingDaemonSet(t), "rev", machine.Options{Ledger: ledger})
			nodes := map[string]*framework.NodeInfo{}
			for i := range 6 {
				node := drawRoom(t, nodeName(i))
				pods := several(t, 4, func(t *rapid.T) *corev1.Pod { return drawNeighbour(t, node.Name) })
				f := placement.NodeOf(node)
				ledger.SetNode(f)
				set.SetNode(f)
				info := framework.NewNodeInfo()
				for j, p := range pods {
					p.Name = fmt.Sprintf("neighbour-%d-%d", i, j)
					p.UID = types.UID(p.Name)
					ledger.SetPod(p)
					if p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed { // the scheduler never sees those
						info.AddPod(p)
					}
				}
				info.SetNode(node)
				nodes[node.Name] = info
			}
			for _, c := range set.Next(time.Unix(0, 0), 100).Creates {
				info := nodes[c.Node]
				pod := c.Template.Pod(c)
				pod.Spec.NodeName = "" // as the scheduler would be given it
				status := filter.run(t, pod, info)
				switch {
				case c.Bound && !status.IsSuccess():
					t.Fatalf("created bound to a node that the scheduler refuses: %s\n%s", status.Message(), situation(pod, info))
				case !c.Bound && status.IsSuccess():
					t.Fatalf("left to the scheduler, which has room: %v\n%s", ledger.Explain(c.Node, placement.DemandOf(&pod.Spec)), situation(pod, info))
				case c.Bound:
					bound++
				default:
					unbound++
				}
			}
		}
	})
	t.Logf("%d pods created bound, %d left to the scheduler", bound, unbound)
	if bound < 500 || unbound < 500 {
		t.Error("too few cases of one kind: the generator has become too narrow")
	}
}

// filters runs the scheduler's own plugins, in its own framework.
type filters struct{ framework framework.Framework }

func newFilters(t *testing.T) *filters {
	metrics.Register()
	config, err := latest.Default()
	if err != nil {
		t.Fatal(err)
	}
	profile := config.Profiles[0]
	profile.Plugins = &schedulerconfig.Plugins{}
	for _, name := range []string{
		names.NodeUnschedulable, names.NodeName, names.TaintToleration, names.NodeAffinity, names.NodePorts, names.NodeResourcesFit,
		names.PrioritySort, names.DefaultBinder, // a profile must have both
	} {
		profile.Plugins.MultiPoint.Enabled = append(profile.Plugins.MultiPoint.Enabled, schedulerconfig.Plugin{Name: name})
	}
	f, err := runtime.NewFramework(t.Context(), plugins.NewInTreeRegistry(), &profile, runtime.WithSnapshotSharedLister(cache.NewSnapshot(nil, nil)))
	if err != nil {
		t.Fatal(err)
	}
	return &filters{framework: f}
}

func (f *filters) run(t *rapid.T, pod *corev1.Pod, node fwk.NodeInfo) *fwk.Status {
	state := framework.NewCycleState()
	only, status, _ := f.framework.RunPreFilterPlugins(t.Context(), state, pod)
	if !status.IsSuccess() {
		return status
	}
	if !only.AllNodes() && !only.NodeNames.Has(node.Node().Name) {
		return fwk.NewStatus(fwk.UnschedulableAndUnresolvable, "not among the nodes that the pod may go to")
	}
	return f.framework.RunFilterPlugins(t.Context(), state, pod, node)
}

func situation(pod *corev1.Pod, node fwk.NodeInfo) string {
	s := fmt.Sprintf("pod %+v\nnode %+v\n", pod.Spec, node.Node().Status.Allocatable)
	for _, p := range node.GetPods() {
		s += fmt.Sprintf("with %+v\n", p.GetPod().Spec)
	}
	return s
}

// asked are amounts that a pod may ask for; a node has a few times as much.
var asked = map[corev1.ResourceName][]string{
	corev1.ResourceCPU:              {"0", "1m", "100m", "500m", "1", "1500m"},
	corev1.ResourceMemory:           {"0", "1", "64Mi", "500M", "1Gi"},
	corev1.ResourceEphemeralStorage: {"0", "1Gi", "3G"},
	"example.com/card":              {"0", "0", "0", "1Mi", "3Mi"},
	"hugepages-2Mi":                 {"0", "0", "0", "4Mi"},
}

func drawRoom(t *rapid.T, name string) *corev1.Node {
	node := drawNode(t, name)
	if chance(t, 2) {
		node.Spec.Taints = nil
	}
	node.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU:              oneOfQuantities(t, "1", "4001m", "8", "16"),
		corev1.ResourceMemory:           oneOfQuantities(t, "2Gi", "8000M", "64Gi"),
		corev1.ResourceEphemeralStorage: oneOfQuantities(t, "3Gi", "9G", "1Ti"),
		corev1.ResourcePods:             oneOfQuantities(t, "0", "1", "3", "110", "110", "110", "110"),
	}
	for _, name := range []corev1.ResourceName{"example.com/card", "hugepages-2Mi"} {
		if !chance(t, 4) { // else the node has none
			node.Status.Allocatable[name] = oneOfQuantities(t, "4Mi", "64Mi")
		}
	}
	return node
}

func drawDemands(t *rapid.T) corev1.PodSpec {
	spec := corev1.PodSpec{HostNetwork: chance(t, 4)}
	container := func(t *rapid.T) corev1.Container {
		return corev1.Container{
			Name: "c", Image: "i",
			Resources: corev1.ResourceRequirements{Requests: drawQuantities(t, asked)},
			Ports:     several(t, 2, drawPort(spec.HostNetwork)),
		}
	}
	spec.Containers = append(several(t, 1, container), container(t))
	spec.InitContainers = several(t, 2, func(t *rapid.T) corev1.Container {
		c := container(t)
		if chance(t, 2) {
			always := corev1.ContainerRestartPolicyAlways
			c.RestartPolicy = &always // a sidecar
		}
		return c
	})
	if chance(t, 4) {
		spec.Overhead = drawQuantities(t, map[corev1.ResourceName][]string{
			corev1.ResourceCPU: asked[corev1.ResourceCPU], corev1.ResourceMemory: asked[corev1.ResourceMemory],
		})
	}
	if chance(t, 4) {
		spec.Resources = &corev1.ResourceRequirements{Requests: drawQuantities(t, map[corev1.ResourceName][]string{
			corev1.ResourceCPU: {"2", "3"}, corev1.ResourceMemory: {"2Gi"},
		})}
	}
	return spec
}

// drawPort draws ports as the API's defaults leave them: with a protocol, and on the host network with a host port.
func drawPort(hostNetwork bool) func(*rapid.T) corev1.ContainerPort {
	return func(t *rapid.T) corev1.ContainerPort {
		p := corev1.ContainerPort{
			ContainerPort: oneOf[int32](80, 9100).Draw(t, "port"),
			Protocol:      oneOf(corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP).Draw(t, "protocol"),
		}
		if hostNetwork {
			p.HostPort = p.ContainerPort
		} else if chance(t, 2) {
			p.HostPort = oneOf[int32](80, 9100).Draw(t, "host port")
		}
		if p.HostPort > 0 {
			p.HostIP = oneOf("", "", "0.0.0.0", "10.0.0.1", "127.0.0.1").Draw(t, "host address")
		}
		return p
	}
}

func drawDemandingDaemonSet(t *rapid.T) *appsv1.DaemonSet {
	ds := newDaemonSet()
	ds.Spec.Template.Spec = drawDemands(t)
	spec := &ds.Spec.Template.Spec
	spec.Tolerations = several(t, 3, drawToleration)
	if chance(t, 4) {
		spec.NodeSelector = drawLabels(t, 1)
	}
	if chance(t, 4) {
		spec.Affinity = drawNodeAffinity(t)
	}
	return ds
}

func drawNeighbour(t *rapid.T, node string) *corev1.Pod {
	p := &corev1.Pod{Spec: drawDemands(t)}
	p.Namespace, p.Spec.NodeName = "other", node
	p.Status.Phase = oneOf(corev1.PodPending, corev1.PodRunning, corev1.PodRunning, corev1.PodRunning, corev1.PodSucceeded, corev1.PodFailed).Draw(t, "phase")
	return p
}
