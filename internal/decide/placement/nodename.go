package placement

// nodeNameRule is spec.nodeName of the template: the daemon runs there and nowhere else.
type nodeNameRule string

func (r nodeNameRule) judge(n *Node) Outcome {
	if n.Name == string(r) {
		return In
	}
	return Out
}

func (r nodeNameRule) explain(n *Node) []Reason {
	if r.judge(n) == In {
		return nil
	}
	return []Reason{{Rule: NodeName, Wants: string(r), Has: n.Name}}
}
