package placement

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// Resources are amounts as the scheduler counts them: CPU in thousandths, all others in whole units.
type Resources struct {
	MilliCPU, Memory, EphemeralStorage int64
	// Other holds extended resources, huge pages and the like; nil when there are none.
	Other map[corev1.ResourceName]int64
}

// resourcesOf takes the amounts from a list; the number of pods is no amount and is left out.
func resourcesOf(l corev1.ResourceList) Resources {
	var r Resources
	for name, q := range l {
		switch name {
		case corev1.ResourceCPU:
			r.MilliCPU = q.MilliValue()
		case corev1.ResourceMemory:
			r.Memory = q.Value()
		case corev1.ResourceEphemeralStorage:
			r.EphemeralStorage = q.Value()
		case corev1.ResourcePods:
		default:
			if q.Value() == 0 {
				continue
			}
			if r.Other == nil {
				r.Other = map[corev1.ResourceName]int64{}
			}
			r.Other[name] = q.Value()
		}
	}
	return r
}

func (r Resources) equal(o Resources) bool {
	return r.MilliCPU == o.MilliCPU && r.Memory == o.Memory && r.EphemeralStorage == o.EphemeralStorage &&
		maps.Equal(r.Other, o.Other)
}

// add adds o times sign (1 or -1).
func (r *Resources) add(o *Resources, sign int64) {
	r.MilliCPU += sign * o.MilliCPU
	r.Memory += sign * o.Memory
	r.EphemeralStorage += sign * o.EphemeralStorage
	for name, n := range o.Other {
		if r.Other == nil {
			r.Other = map[corev1.ResourceName]int64{}
		}
		if r.Other[name] += sign * n; r.Other[name] == 0 {
			delete(r.Other, name)
		}
	}
}

// Shortage is a resource that a node has too little of.
type Shortage struct {
	Resource corev1.ResourceName `json:"resource"`
	Asked    resource.Quantity   `json:"asked"`
	Free     resource.Quantity   `json:"free"`
	// Short is what is missing: Asked minus Free.
	Short resource.Quantity `json:"short"`
}

func shortage(name corev1.ResourceName, asked, free int64) *Shortage {
	q := func(v int64) resource.Quantity {
		switch name {
		case corev1.ResourceCPU:
			return *resource.NewMilliQuantity(v, resource.DecimalSI)
		case corev1.ResourceMemory, corev1.ResourceEphemeralStorage:
			return *resource.NewQuantity(v, resource.BinarySI)
		default:
			return *resource.NewQuantity(v, resource.DecimalSI)
		}
	}
	return &Shortage{Resource: name, Asked: q(asked), Free: q(free), Short: q(asked - free)}
}

// Port is a host port. An empty IP is every address of the node.
type Port struct {
	IP       string          `json:"ip,omitempty"`
	Protocol corev1.Protocol `json:"protocol"`
	Number   int32           `json:"number"`
}

// String is "9100/TCP", or "10.0.0.1:9100/TCP" for one address.
func (p Port) String() string {
	if p.IP == "" {
		return fmt.Sprintf("%d/%s", p.Number, p.Protocol)
	}
	return fmt.Sprintf("%s:%d/%s", p.IP, p.Number, p.Protocol)
}

// clash says whether both cannot be listened on at once.
func (p Port) clash(o Port) bool {
	return p.Number == o.Number && p.Protocol == o.Protocol && (p.IP == o.IP || p.IP == "" || o.IP == "")
}

// Demand is the room that one pod takes on its node, besides counting as one pod.
type Demand struct {
	Resources
	Ports []Port
}

// Clashes returns the first host port that both ask for.
func (d *Demand) Clashes(o *Demand) (Port, bool) {
	for _, p := range d.Ports {
		if slices.ContainsFunc(o.Ports, p.clash) {
			return p, true
		}
	}
	return Port{}, false
}

// DemandOf adds up a pod's requests as the scheduler does (init containers and sidecars, pod-level requests,
// overhead), and its host ports.
func DemandOf(spec *corev1.PodSpec) *Demand {
	requests := resourcehelper.PodRequests(&corev1.Pod{Spec: *spec}, resourcehelper.PodResourcesOptions{})
	d := &Demand{Resources: resourcesOf(requests)}
	for i := range spec.InitContainers {
		if c := &spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			d.addPorts(spec, c)
		}
	}
	for i := range spec.Containers {
		d.addPorts(spec, &spec.Containers[i])
	}
	slices.SortFunc(d.Ports, func(a, b Port) int {
		return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.IP, b.IP))
	})
	d.Ports = slices.Compact(d.Ports)
	return d
}

func (d *Demand) addPorts(spec *corev1.PodSpec, c *corev1.Container) {
	for _, p := range c.Ports {
		number := p.HostPort
		if number == 0 && spec.HostNetwork { // as the API's defaults have it
			number = p.ContainerPort
		}
		if number <= 0 {
			continue
		}
		port := Port{IP: p.HostIP, Protocol: p.Protocol, Number: number}
		if port.Protocol == "" {
			port.Protocol = corev1.ProtocolTCP
		}
		if port.IP == "0.0.0.0" {
			port.IP = ""
		}
		d.Ports = append(d.Ports, port)
	}
}
