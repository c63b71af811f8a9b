package placement

import corev1 "k8s.io/api/core/v1"

// Tolerates tells whether a toleration matches a taint.
func Tolerates(tol *corev1.Toleration, t *corev1.Taint) bool { return tolerates(tol, t) }
