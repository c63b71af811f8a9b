package manifests

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/everynode/everynode/internal/agent/objects"
)

// validate says why a pod cannot run. It checks what the agent builds on: names, which become
// folders and containers, and references between parts of the pod. What else may be wrong shows in
// the pod's status, or when the server refuses its mirror.
func validate(read, pod *corev1.Pod) error {
	v := validator{}
	v.metadata(read, pod)
	v.references(pod)
	v.spec(&pod.Spec, field.NewPath("spec"))
	return v.errs.ToAggregate()
}

type validator struct{ errs field.ErrorList }

func (v *validator) add(err *field.Error) { v.errs = append(v.errs, err) }

func (v *validator) name(path *field.Path, name string, rule func(string) []string) {
	if name == "" {
		v.add(field.Required(path, ""))
		return
	}
	for _, msg := range rule(name) {
		v.add(field.Invalid(path, name, msg))
	}
}

func (v *validator) metadata(read, pod *corev1.Pod) {
	at := field.NewPath("metadata")
	if read.Name == "" {
		v.add(field.Required(at.Child("name"), "a static pod needs a name; generateName has no effect here"))
	} else {
		v.name(at.Child("name"), pod.Name, validation.IsDNS1123Subdomain)
	}
	v.name(at.Child("namespace"), pod.Namespace, validation.IsDNS1123Label)
	for key, value := range pod.Labels {
		for _, msg := range append(validation.IsQualifiedName(key), validation.IsValidLabelValue(value)...) {
			v.add(field.Invalid(at.Child("labels"), key+": "+value, msg))
		}
	}
}

// references refuses what needs an API object, as the kubelet and the server do.
func (v *validator) references(pod *corev1.Pod) {
	const why = "a static pod must not need a server"
	at := field.NewPath("spec")
	if pod.Spec.ServiceAccountName != "" || pod.Spec.DeprecatedServiceAccount != "" {
		v.add(field.Forbidden(at.Child("serviceAccountName"), why))
	}
	if len(pod.Spec.ResourceClaims) > 0 {
		v.add(field.Forbidden(at.Child("resourceClaims"), why))
	}
	for _, ref := range objects.References(pod) {
		v.add(field.Forbidden(at, fmt.Sprintf("it refers to %s, but %s: put it into a hostPath volume, or the value into the manifest", ref, why)))
	}
	for i := range pod.Spec.Volumes {
		if kind := apiVolume(&pod.Spec.Volumes[i]); kind != "" {
			v.add(field.Forbidden(at.Child("volumes").Index(i), fmt.Sprintf("%s needs an API object, but %s", kind, why)))
		}
	}
}

// apiVolume names the kind of a volume that needs an API object other than a ConfigMap or Secret.
func apiVolume(v *corev1.Volume) string {
	switch {
	case v.PersistentVolumeClaim != nil:
		return "persistentVolumeClaim"
	case v.Ephemeral != nil:
		return "ephemeral"
	case v.CSI != nil:
		return "csi"
	case v.Glusterfs != nil:
		return "glusterfs"
	case v.AzureFile != nil:
		return "azureFile"
	case v.Projected == nil:
		return ""
	}
	for _, s := range v.Projected.Sources {
		switch {
		case s.ServiceAccountToken != nil:
			return "serviceAccountToken"
		case s.ClusterTrustBundle != nil:
			return "clusterTrustBundle"
		case s.PodCertificate != nil:
			return "podCertificate"
		}
	}
	return ""
}

func (v *validator) spec(spec *corev1.PodSpec, at *field.Path) {
	if len(spec.Containers) == 0 {
		v.add(field.Required(at.Child("containers"), "a pod needs at least one"))
	}
	if len(spec.EphemeralContainers) > 0 {
		v.add(field.Forbidden(at.Child("ephemeralContainers"), "they can only be added to a running pod"))
	}
	switch spec.RestartPolicy {
	case corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever:
	default:
		v.add(field.NotSupported(at.Child("restartPolicy"), spec.RestartPolicy, []corev1.RestartPolicy{corev1.RestartPolicyAlways, corev1.RestartPolicyOnFailure, corev1.RestartPolicyNever}))
	}
	if *spec.TerminationGracePeriodSeconds < 0 {
		v.add(field.Invalid(at.Child("terminationGracePeriodSeconds"), *spec.TerminationGracePeriodSeconds, "must not be negative"))
	}
	if s := spec.ActiveDeadlineSeconds; s != nil && *s < 1 {
		v.add(field.Invalid(at.Child("activeDeadlineSeconds"), *s, "must be at least 1"))
	}
	volumes := sets.New[string]()
	for i := range spec.Volumes {
		p := at.Child("volumes").Index(i).Child("name")
		v.name(p, spec.Volumes[i].Name, validation.IsDNS1123Label)
		v.unique(p, spec.Volumes[i].Name, volumes)
	}
	names := sets.New[string]()
	for i := range spec.InitContainers {
		v.container(&spec.InitContainers[i], at.Child("initContainers").Index(i), names, volumes)
	}
	for i := range spec.Containers {
		v.container(&spec.Containers[i], at.Child("containers").Index(i), names, volumes)
	}
}

func (v *validator) unique(path *field.Path, name string, seen sets.Set[string]) {
	if seen.Has(name) {
		v.add(field.Duplicate(path, name))
	}
	seen.Insert(name)
}

func (v *validator) container(c *corev1.Container, at *field.Path, names, volumes sets.Set[string]) {
	v.name(at.Child("name"), c.Name, validation.IsDNS1123Label)
	v.unique(at.Child("name"), c.Name, names)
	if c.Image == "" {
		v.add(field.Required(at.Child("image"), ""))
	} else if strings.TrimSpace(c.Image) != c.Image {
		v.add(field.Invalid(at.Child("image"), c.Image, "must not begin or end with white space"))
	}
	for i, m := range c.VolumeMounts {
		p := at.Child("volumeMounts").Index(i)
		if !volumes.Has(m.Name) {
			v.add(field.NotFound(p.Child("name"), m.Name))
		}
		if m.MountPath == "" {
			v.add(field.Required(p.Child("mountPath"), ""))
		}
	}
	for i, e := range c.Env {
		if e.Name == "" {
			v.add(field.Required(at.Child("env").Index(i).Child("name"), ""))
		}
	}
	for i, p := range c.Ports {
		v.port(at.Child("ports").Index(i).Child("containerPort"), p.ContainerPort, 1)
		v.port(at.Child("ports").Index(i).Child("hostPort"), p.HostPort, 0)
	}
	v.resources(c, at.Child("resources"))
	v.probe(c.LivenessProbe, at.Child("livenessProbe"))
	v.probe(c.ReadinessProbe, at.Child("readinessProbe"))
	v.probe(c.StartupProbe, at.Child("startupProbe"))
}

func (v *validator) port(at *field.Path, port, least int32) {
	if port < least || port > 65535 {
		v.add(field.Invalid(at, port, "must be between 1 and 65535"))
	}
}

func (v *validator) resources(c *corev1.Container, at *field.Path) {
	for name, request := range c.Resources.Requests {
		limit, limited := c.Resources.Limits[name]
		if request.Sign() < 0 {
			v.add(field.Invalid(at.Child("requests").Key(string(name)), request.String(), "must not be negative"))
		}
		if limited && request.Cmp(limit) > 0 {
			v.add(field.Invalid(at.Child("requests").Key(string(name)), request.String(), "must not be more than the limit of "+text(limit)))
		}
	}
}

func text(q resource.Quantity) string { return q.String() }

func (v *validator) probe(p *corev1.Probe, at *field.Path) {
	if p == nil {
		return
	}
	kinds := 0
	for _, given := range []bool{p.Exec != nil, p.HTTPGet != nil, p.TCPSocket != nil, p.GRPC != nil} {
		if given {
			kinds++
		}
	}
	if kinds != 1 {
		v.add(field.Invalid(at, kinds, "must have exactly one of exec, httpGet, tcpSocket and grpc"))
	}
	for name, value := range map[string]int32{
		"initialDelaySeconds": p.InitialDelaySeconds, "timeoutSeconds": p.TimeoutSeconds, "periodSeconds": p.PeriodSeconds,
		"successThreshold": p.SuccessThreshold, "failureThreshold": p.FailureThreshold,
	} {
		if value < 0 {
			v.add(field.Invalid(at.Child(name), value, "must not be negative"))
		}
	}
}
