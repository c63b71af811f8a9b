package nodehealth

import (
	"time"

	"github.com/everynode/everynode/internal/decide/placement"
	corev1 "k8s.io/api/core/v1"
)

// forever is a stay without an end.
const forever = time.Duration(-1)

// stay is how long a pod with these tolerations may stay on a node with these taints from when it met them: 0 is
// not at all. Each taint is answered by the first toleration that matches it, as upstream does.
func stay(tolerations []corev1.Toleration, taints []corev1.Taint) time.Duration {
	limit := forever
	for i := range taints {
		if taints[i].Effect != corev1.TaintEffectNoExecute {
			continue
		}
		t := answer(tolerations, &taints[i])
		switch {
		case t == nil:
			return 0
		case t.TolerationSeconds == nil:
			continue
		}
		seconds := time.Duration(max(*t.TolerationSeconds, 0)) * time.Second
		if limit == forever || seconds < limit {
			limit = seconds
		}
	}
	return limit
}

func answer(tolerations []corev1.Toleration, taint *corev1.Taint) *corev1.Toleration {
	for i := range tolerations {
		if placement.Tolerates(&tolerations[i], taint) {
			return &tolerations[i]
		}
	}
	return nil
}

// sameNoExecute tells whether two lists have the same NoExecute taints, whenever they were added.
func sameNoExecute(a, b []corev1.Taint) bool {
	next := func(l []corev1.Taint) (*corev1.Taint, []corev1.Taint) {
		for i := range l {
			if l[i].Effect == corev1.TaintEffectNoExecute {
				return &l[i], l[i+1:]
			}
		}
		return nil, nil
	}
	for {
		var x, y *corev1.Taint
		x, a = next(a)
		y, b = next(b)
		if x == nil || y == nil {
			return x == y
		}
		if x.Key != y.Key || x.Value != y.Value {
			return false
		}
	}
}
