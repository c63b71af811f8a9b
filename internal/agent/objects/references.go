package objects

import (
	corev1 "k8s.io/api/core/v1"
)

// References lists what a pod references, each once, in the order of its spec:
// through volumes, environment variables and pull secrets.
func References(pod *corev1.Pod) []Ref {
	l := lister{namespace: pod.Namespace, seen: map[Ref]bool{}}
	for i := range pod.Spec.ImagePullSecrets {
		l.add(Secret, pod.Spec.ImagePullSecrets[i].Name)
	}
	for i := range pod.Spec.Volumes {
		l.volume(&pod.Spec.Volumes[i])
	}
	for i := range pod.Spec.InitContainers {
		l.environment(pod.Spec.InitContainers[i].EnvFrom, pod.Spec.InitContainers[i].Env)
	}
	for i := range pod.Spec.Containers {
		l.environment(pod.Spec.Containers[i].EnvFrom, pod.Spec.Containers[i].Env)
	}
	for i := range pod.Spec.EphemeralContainers {
		l.environment(pod.Spec.EphemeralContainers[i].EnvFrom, pod.Spec.EphemeralContainers[i].Env)
	}
	return l.refs
}

// VolumeReferences lists what one volume of a pod references.
func VolumeReferences(namespace string, v *corev1.Volume) []Ref {
	l := lister{namespace: namespace, seen: map[Ref]bool{}}
	l.volume(v)
	return l.refs
}

type lister struct {
	namespace string
	seen      map[Ref]bool
	refs      []Ref
}

func (l *lister) add(kind Kind, name string) {
	ref := Ref{Kind: kind, Namespace: l.namespace, Name: name}
	if name == "" || l.seen[ref] {
		return
	}
	l.seen[ref] = true
	l.refs = append(l.refs, ref)
}

func (l *lister) volume(v *corev1.Volume) {
	switch {
	case v.ConfigMap != nil:
		l.add(ConfigMap, v.ConfigMap.Name)
	case v.Secret != nil:
		l.add(Secret, v.Secret.SecretName)
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			if s.ConfigMap != nil {
				l.add(ConfigMap, s.ConfigMap.Name)
			}
			if s.Secret != nil {
				l.add(Secret, s.Secret.Name)
			}
		}
	}
}

func (l *lister) environment(from []corev1.EnvFromSource, env []corev1.EnvVar) {
	for _, e := range from {
		if e.ConfigMapRef != nil {
			l.add(ConfigMap, e.ConfigMapRef.Name)
		}
		if e.SecretRef != nil {
			l.add(Secret, e.SecretRef.Name)
		}
	}
	for _, e := range env {
		if e.ValueFrom == nil {
			continue
		}
		if e.ValueFrom.ConfigMapKeyRef != nil {
			l.add(ConfigMap, e.ValueFrom.ConfigMapKeyRef.Name)
		}
		if e.ValueFrom.SecretKeyRef != nil {
			l.add(Secret, e.ValueFrom.SecretKeyRef.Name)
		}
	}
}
