package env

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"

	"github.com/everynode/everynode/internal/agent/downward"
	"github.com/everynode/everynode/internal/agent/objects"
)

// Var is one environment variable.
type Var struct{ Name, Value string }

// Make returns the environment of a container: envFrom first (of two sources of
// one name the later wins), then env in its order, where $(NAME) stands for what
// was defined before it or by a service, then the variables of services that
// nothing else defined. services are those of all namespaces that the caller
// knows; Make picks the pod's and default/kubernetes.
//
// Equal input gives equal output, byte for byte.
func Make(ctx context.Context, pod *corev1.Pod, c *corev1.Container, f downward.Facts, services []*corev1.Service, src objects.Source, open OpenFile) ([]Var, error) {
	m := maker{
		pod: pod, container: c, facts: f, src: src, open: open,
		values:   map[string]string{},
		services: fromServices(visible(services, pod)),
	}
	for i := range c.EnvFrom {
		if err := m.from(ctx, &c.EnvFrom[i]); err != nil {
			return nil, fmt.Errorf("envFrom of container %q: %w", c.Name, err)
		}
	}
	for i := range c.Env {
		if err := m.define(ctx, &c.Env[i]); err != nil {
			return nil, fmt.Errorf("env %q of container %q: %w", c.Env[i].Name, c.Name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.services)) {
		if _, defined := m.values[name]; !defined {
			m.set(name, m.services[name])
		}
	}
	out := make([]Var, 0, len(m.order))
	for _, name := range m.order {
		out = append(out, Var{Name: name, Value: m.values[name]})
	}
	return out, nil
}

type maker struct {
	pod       *corev1.Pod
	container *corev1.Container
	facts     downward.Facts
	src       objects.Source
	open      OpenFile
	services  map[string]string

	values map[string]string
	order  []string
}

func (m *maker) set(name, value string) {
	if _, defined := m.values[name]; !defined {
		m.order = append(m.order, name)
	}
	m.values[name] = value
}

func (m *maker) from(ctx context.Context, e *corev1.EnvFromSource) error {
	var values map[string]string
	var err error
	switch {
	case e.ConfigMapRef != nil:
		values, err = m.configMap(ctx, e.ConfigMapRef.Name, ptr.Deref(e.ConfigMapRef.Optional, false))
	case e.SecretRef != nil:
		values, err = m.secret(ctx, e.SecretRef.Name, ptr.Deref(e.SecretRef.Optional, false))
	}
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if name := e.Prefix + key; representable(name) {
			m.set(name, values[key])
		}
	}
	return nil
}

// representable says whether an environment can hold a name at all. Names that
// are no C identifiers (data-1) are passed on: programs may well read them.
func representable(name string) bool {
	return name != "" && !strings.ContainsAny(name, "=\x00")
}

// configMap returns an object's data, nil if it is optional and missing.
func (m *maker) configMap(ctx context.Context, name string, optional bool) (map[string]string, error) {
	cm, err := m.src.ConfigMap(ctx, m.pod.Namespace, name)
	if apierrors.IsNotFound(err) && optional {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return cm.Data, nil
}

func (m *maker) secret(ctx context.Context, name string, optional bool) (map[string]string, error) {
	s, err := m.src.Secret(ctx, m.pod.Namespace, name)
	if apierrors.IsNotFound(err) && optional {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := make(map[string]string, len(s.Data))
	for k, v := range s.Data {
		out[k] = string(v)
	}
	return out, nil
}

// define adds one entry of env. An optional reference to nothing adds none.
func (m *maker) define(ctx context.Context, e *corev1.EnvVar) error {
	if e.Value != "" || e.ValueFrom == nil {
		m.set(e.Name, expand(e.Value, m.lookup))
		return nil
	}
	value, found, err := m.resolve(ctx, e.ValueFrom)
	if err == nil && found {
		m.set(e.Name, value)
	}
	return err
}

func (m *maker) lookup(name string) (string, bool) {
	if v, ok := m.values[name]; ok {
		return v, true
	}
	v, ok := m.services[name]
	return v, ok
}

func (m *maker) resolve(ctx context.Context, from *corev1.EnvVarSource) (value string, found bool, err error) {
	switch {
	case from.FieldRef != nil:
		value, err = downward.Field(from.FieldRef, m.pod, m.facts)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err = downward.Resource(from.ResourceFieldRef, m.pod, m.container, m.facts)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		ref, optional := from.ConfigMapKeyRef, ptr.Deref(from.ConfigMapKeyRef.Optional, false)
		values, err := m.configMap(ctx, ref.Name, optional)
		return key(values, ref.Key, optional, err, "ConfigMap "+m.pod.Namespace+"/"+ref.Name)
	case from.SecretKeyRef != nil:
		ref, optional := from.SecretKeyRef, ptr.Deref(from.SecretKeyRef.Optional, false)
		values, err := m.secret(ctx, ref.Name, optional)
		return key(values, ref.Key, optional, err, "Secret "+m.pod.Namespace+"/"+ref.Name)
	case from.FileKeyRef != nil:
		return m.file(from.FileKeyRef)
	}
	return "", true, nil
}

func key(values map[string]string, name string, optional bool, err error, object string) (string, bool, error) {
	if err != nil {
		return "", false, err
	}
	value, found := values[name]
	if !found && !optional {
		return "", false, fmt.Errorf("%s has no key %q: add it, or mark the reference optional", object, name)
	}
	return value, found, nil
}
