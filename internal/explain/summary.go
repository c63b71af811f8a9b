package explain

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/everynode/everynode/internal/decide/daemonset"
	"github.com/everynode/everynode/internal/decide/placement"
)

// mostGroups bounds the reasons that a summary names for one state.
const mostGroups = 4

// brief is a node's reason, short enough to stand in a summary for all nodes that share it. Nodes that are short
// of the same resource share it, whatever the amounts.
type brief struct {
	key   string
	short *placement.Shortage
}

// or is b, or else the text if b says nothing.
func (b brief) or(text string) brief {
	if b.key == "" {
		return brief{key: text}
	}
	return b
}

// excludedBy is the brief of a node that the template excludes.
func excludedBy(reasons []placement.Reason) brief {
	var parts, terms []string
	for _, r := range reasons {
		switch r.Rule {
		case placement.NodeName:
			parts = append(parts, "nodeName "+r.Wants)
		case placement.NodeSelector:
			parts = append(parts, "nodeSelector "+r.Wants)
		case placement.Taint:
			parts = append(parts, "taint "+r.Has)
		case placement.NodeAffinity:
			terms = append(terms, r.Wants)
		}
	}
	if len(terms) > 0 {
		parts = append(parts, "affinity "+strings.Join(slices.Compact(terms), " or "))
	}
	return brief{key: "excluded by " + strings.Join(parts, " and ")}
}

// short is the brief of a node without room.
func short(reasons []placement.Reason) brief {
	if len(reasons) == 1 && reasons[0].Shortage != nil {
		return brief{key: string(reasons[0].Shortage.Resource), short: reasons[0].Shortage}
	}
	var parts []string
	for _, r := range reasons {
		switch r.Rule {
		case placement.Resource:
			parts = append(parts, string(r.Shortage.Resource)+" short")
		case placement.HostPort:
			parts = append(parts, "host port "+r.Wants+" taken")
		default:
			parts = append(parts, "no room for one more pod")
		}
	}
	return brief{key: strings.Join(parts, " and ")}
}

// groups count nodes by their brief.
type groups map[string]*group

type group struct {
	brief    brief
	nodes    int
	from, to resource.Quantity // of a shortage
}

func (g groups) add(b brief) {
	x := g[b.key]
	if x == nil {
		x = &group{brief: b}
		g[b.key] = x
		if b.short != nil {
			x.from, x.to = b.short.Short, b.short.Short
		}
	}
	x.nodes++
	if b.short != nil && b.short.Short.Cmp(x.from) < 0 {
		x.from = b.short.Short
	}
	if b.short != nil && b.short.Short.Cmp(x.to) > 0 {
		x.to = b.short.Short
	}
}

func (x *group) String() string {
	switch {
	case x.brief.short == nil:
		return x.brief.key
	case x.from.Cmp(x.to) == 0:
		return fmt.Sprintf("%s short by %s", x.brief.key, x.from.String())
	default:
		return fmt.Sprintf("%s short by %s to %s", x.brief.key, x.from.String(), x.to.String())
	}
}

// sorted returns the groups, the largest first.
func (g groups) sorted() []*group {
	return slices.SortedFunc(maps.Values(g), func(a, b *group) int {
		return cmp.Or(b.nodes-a.nodes, strings.Compare(a.brief.key, b.brief.key))
	})
}

// lines is "2 excluded by …", "1 excluded by …", and so on.
func (g groups) lines() []string {
	var lines []string
	rest := 0
	all := g.sorted()
	for i, x := range all {
		if i < mostGroups || len(all) == mostGroups+1 { // one more takes no more room than "other reasons"
			lines = append(lines, fmt.Sprintf("%d %s", x.nodes, x))
		} else {
			rest += x.nodes
		}
	}
	if rest > 0 {
		lines = append(lines, fmt.Sprintf("%d for other reasons", rest))
	}
	return lines
}

// summarize is "42 of 45 nodes; 2 excluded by taint dedicated=gpu:NoSchedule, 1 pending: cpu short by 150m".
func (r *Report) summarize() string {
	s := fmt.Sprintf("%d of %s", r.Counts.In, count(r.Counts.Nodes, "node"))
	byState := map[daemonset.State]groups{}
	for i := range r.Nodes {
		n := &r.Nodes[i]
		if byState[n.State] == nil {
			byState[n.State] = groups{}
		}
		byState[n.State].add(n.brief)
	}
	var parts []string
	for _, state := range []daemonset.State{daemonset.Out, daemonset.Failing, daemonset.Pending, daemonset.Updating} {
		if state == daemonset.Out {
			parts = append(parts, byState[state].lines()...)
			continue
		}
		for _, line := range byState[state].lines() {
			n, why, _ := strings.Cut(line, " ")
			parts = append(parts, fmt.Sprintf("%s %s: %s", n, state, why))
		}
	}
	if len(parts) == 0 {
		return s
	}
	return s + "; " + strings.Join(parts, ", ")
}
