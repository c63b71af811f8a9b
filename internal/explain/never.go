package explain

import (
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/everynode/everynode/internal/decide/daemonset"
	"github.com/everynode/everynode/internal/decide/placement"
)

// never says plainly why the DaemonSet can run on no node: because its requirements exclude each other, because
// no node is open to it, or because none that is open is large enough even when empty. "" if some node can run it.
func (v *view) never() string {
	if clash := v.template.Contradiction(); clash != "" {
		return "it can never run on any node: " + clash
	}
	if v.facts.Partial {
		return "" // other nodes may be open to it
	}
	if len(v.nodes) == 0 {
		return "it can run nowhere: there are no nodes"
	}
	var open []string
	excluded := groups{}
	for _, name := range v.nodeNames() {
		verdict := v.template.Explain(placement.NodeOf(v.nodes[name]))
		if verdict.Outcome == placement.In {
			open = append(open, name)
		} else {
			excluded.add(v.excluded(name, verdict.Reasons))
		}
	}
	if len(open) == 0 {
		return "no node may run it: " + strings.Join(excluded.lines(), ", ")
	}
	small := groups{}
	for _, name := range open {
		reasons := v.tooSmall(name)
		if len(reasons) == 0 {
			return ""
		}
		small.add(short(reasons))
	}
	return fmt.Sprintf("no node is large enough for it, even empty: %s%s", strings.Join(small.lines(), ", "), v.largest(open))
}

// largest says what the largest of the nodes has of the resources that are short on all of them.
func (v *view) largest(nodes []string) string {
	best := map[corev1.ResourceName]*placement.Shortage{}
	seen := map[corev1.ResourceName]int{}
	var names []corev1.ResourceName
	for _, name := range nodes {
		for _, r := range v.tooSmall(name) {
			s := r.Shortage
			if s == nil {
				continue
			}
			if best[s.Resource] == nil {
				names = append(names, s.Resource)
			}
			seen[s.Resource]++
			if b := best[s.Resource]; b == nil || s.Free.Cmp(b.Free) > 0 {
				best[s.Resource] = s
			}
		}
	}
	var parts []string
	for _, name := range names {
		if s := best[name]; seen[name] == len(nodes) {
			parts = append(parts, fmt.Sprintf("%s %s asked, the largest has %s", name, s.Asked.String(), s.Free.String()))
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, "; ") + ")"
}

// warnings are about the DaemonSet as it is written.
func warnings(ds *appsv1.DaemonSet) []string {
	ports := daemonset.SurgePorts(&ds.Spec)
	if len(ports) == 0 {
		return nil
	}
	names := make([]string, len(ports))
	for i, p := range ports {
		names[i] = p.String()
	}
	return []string{fmt.Sprintf(
		"maxSurge with host ports: an update can never finish, because the new pod needs host port %s, which the old pod on the same node holds until it is gone",
		strings.Join(names, ", "))}
}
