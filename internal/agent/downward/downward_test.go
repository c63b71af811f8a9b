package downward

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func examplePod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "web", Namespace: "shop", UID: "1-2-3",
			Labels:      map[string]string{"app": "web", "app-tier": "front", "example.com/x": "y"},
			Annotations: map[string]string{"Example.com/note": "two\nlines", "a": `q"`},
		},
		Spec: corev1.PodSpec{NodeName: "n1", ServiceAccountName: "sa"},
	}
}

func TestField(t *testing.T) {
	f := Facts{NodeName: "n1", HostIPs: []string{"10.0.0.1", "fd00::1"}, PodIPs: []string{"10.42.0.2", "fd01::2"}}
	for path, want := range map[string]string{
		"metadata.name":                            "web",
		"metadata.namespace":                       "shop",
		"metadata.uid":                             "1-2-3",
		"metadata.labels":                          "app=\"web\"\napp-tier=\"front\"\nexample.com/x=\"y\"",
		"metadata.annotations":                     "Example.com/note=\"two\\nlines\"\na=\"q\\\"\"",
		"metadata.labels['app']":                   "web",
		"metadata.labels['example.com/x']":         "y",
		"metadata.labels['absent']":                "",
		"metadata.annotations['Example.com/note']": "two\nlines",
		"spec.nodeName":                            "n1",
		"spec.host":                                "n1",
		"spec.serviceAccountName":                  "sa",
		"status.hostIP":                            "10.0.0.1",
		"status.hostIPs":                           "10.0.0.1,fd00::1",
		"status.podIP":                             "10.42.0.2",
		"status.podIPs":                            "10.42.0.2,fd01::2",
	} {
		got, err := Field(&corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: path}, examplePod(), f)
		if err != nil || got != want {
			t.Errorf("Field(%s) = %q, %v; want %q", path, got, err, want)
		}
	}
}

func TestFieldOfAHostNetworkPod(t *testing.T) {
	pod := examplePod()
	pod.Spec.HostNetwork = true
	got, err := Field(&corev1.ObjectFieldSelector{FieldPath: "status.podIP"}, pod, Facts{HostIPs: []string{"10.0.0.1"}})
	if err != nil || got != "10.0.0.1" {
		t.Errorf("podIP = %q, %v; want the node's address", got, err)
	}
}

func TestFieldRefusals(t *testing.T) {
	for path, want := range map[string]string{
		"status.phase":                  "not a field",
		"metadata.labels['']":           "name part must be non-empty",
		"metadata.labels['a b']":        "must consist of",
		"metadata.name['x']":            "take a key",
		"metadata.finalizers":           "not a field",
		"":                              "not a field",
		"['x']":                         "not a field",
		"metadata.annotations['a/b/c']": "must consist of",
	} {
		_, err := Field(&corev1.ObjectFieldSelector{FieldPath: path}, examplePod(), Facts{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Field(%s): error %v; want one with %q", path, err, want)
		}
	}
	if _, err := Field(&corev1.ObjectFieldSelector{APIVersion: "v2", FieldPath: "metadata.name"}, examplePod(), Facts{}); err == nil {
		t.Error("apiVersion v2 was accepted")
	}
}

func list(pairs ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i < len(pairs); i += 2 {
		out[corev1.ResourceName(pairs[i])] = resource.MustParse(pairs[i+1])
	}
	return out
}

func TestResource(t *testing.T) {
	pod := examplePod()
	pod.Spec.Containers = []corev1.Container{
		{Name: "full", Resources: corev1.ResourceRequirements{
			Limits:   list("cpu", "1500m", "memory", "100Mi", "hugepages-2Mi", "4Mi"),
			Requests: list("cpu", "250m", "memory", "64Mi", "ephemeral-storage", "1Gi"),
		}},
		{Name: "empty"},
	}
	pod.Spec.InitContainers = []corev1.Container{{Name: "init", Resources: corev1.ResourceRequirements{Limits: list("cpu", "3")}}}
	facts := Facts{Allocatable: list("cpu", "1900m", "memory", "2Gi", "ephemeral-storage", "10Gi", "hugepages-2Mi", "1Gi")}
	for _, c := range []struct{ resource, container, divisor, want string }{
		{"limits.cpu", "", "", "2"},
		{"limits.cpu", "", "1m", "1500"},
		{"limits.memory", "", "1Mi", "100"},
		{"limits.hugepages-2Mi", "", "1Mi", "4"},
		{"requests.cpu", "", "1", "1"},
		{"requests.cpu", "", "1m", "250"},
		{"requests.memory", "", "1Gi", "1"},
		{"requests.ephemeral-storage", "", "1Mi", "1024"},
		{"limits.ephemeral-storage", "", "1Gi", "10"},
		{"limits.cpu", "empty", "1m", "1900"},
		{"limits.memory", "empty", "1Gi", "2"},
		{"limits.hugepages-2Mi", "empty", "", "0"},
		{"requests.cpu", "empty", "", "0"},
		{"limits.cpu", "init", "", "3"},
	} {
		ref := &corev1.ResourceFieldSelector{Resource: c.resource, ContainerName: c.container}
		if c.divisor != "" {
			ref.Divisor = resource.MustParse(c.divisor)
		}
		got, err := Resource(ref, pod, &pod.Spec.Containers[0], facts)
		if err != nil || got != c.want {
			t.Errorf("%+v: got %q, %v", c, got, err)
		}
	}

	pod.Spec.Resources = &corev1.ResourceRequirements{Limits: list("memory", "1Gi")}
	got, err := Resource(&corev1.ResourceFieldSelector{Resource: "limits.memory"}, pod, &pod.Spec.Containers[1], facts)
	if err != nil || got != "1073741824" {
		t.Errorf("limits.memory under a pod's limit = %q, %v", got, err)
	}
}

func TestResourceRefusals(t *testing.T) {
	pod := examplePod()
	pod.Spec.Containers = []corev1.Container{{Name: "c"}}
	for _, ref := range []corev1.ResourceFieldSelector{
		{Resource: "limits.gpu"}, {Resource: "cpu"}, {Resource: "used.cpu"}, {Resource: ""}, {Resource: "limits.cpu", ContainerName: "other"},
	} {
		if got, err := Resource(&ref, pod, &pod.Spec.Containers[0], Facts{}); err == nil {
			t.Errorf("%+v gave %q; want an error", ref, got)
		}
	}
	if _, err := Resource(&corev1.ResourceFieldSelector{Resource: "limits.cpu"}, pod, nil, Facts{}); err == nil {
		t.Error("a file's resourceFieldRef without containerName was accepted")
	}
}
