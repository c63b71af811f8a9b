package placement

import corev1 "k8s.io/api/core/v1"

// taintRule holds a daemon's tolerations. An untolerated NoExecute taint removes the daemon, an untolerated
// NoSchedule taint keeps a new one away.
type taintRule []corev1.Toleration

func (r taintRule) judge(n *Node) Outcome {
	o := In
	for i := range n.Taints {
		if r.tolerate(&n.Taints[i]) {
			continue
		}
		if n.Taints[i].Effect == corev1.TaintEffectNoExecute {
			return Out
		}
		o = Stay
	}
	return o
}

func (r taintRule) explain(n *Node) []Reason {
	var reasons []Reason
	for i := range n.Taints {
		if t := &n.Taints[i]; !r.tolerate(t) {
			reasons = append(reasons, Reason{
				Rule: Taint, Wants: "no taint that it does not tolerate", Has: t.ToString(), Taint: t.DeepCopy(),
			})
		}
	}
	return reasons
}

func (r taintRule) tolerate(t *corev1.Taint) bool {
	for i := range r {
		if tolerates(&r[i], t) {
			return true
		}
	}
	return false
}

// tolerates reads a toleration: an empty effect matches every effect, an empty key every key, and no
// operator means Equal. The alpha operators Lt and Gt tolerate nothing, as with their feature gate off.
func tolerates(tol *corev1.Toleration, t *corev1.Taint) bool {
	if tol.Effect != "" && tol.Effect != t.Effect {
		return false
	}
	if tol.Key != "" && tol.Key != t.Key {
		return false
	}
	switch tol.Operator {
	case "", corev1.TolerationOpEqual:
		return tol.Value == t.Value
	case corev1.TolerationOpExists:
		return true
	default:
		return false
	}
}
