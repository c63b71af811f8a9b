package daemonset

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/fnv"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/utils/dump"
)

// RevisionData is what a ControllerRevision stores: a patch that puts the template back, byte for byte what
// upstream's controller writes, so that kubectl rollout history and undo, and either controller, read it.
func RevisionData(ds *appsv1.DaemonSet) ([]byte, error) {
	template, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&ds.Spec.Template)
	if err != nil {
		return nil, fmt.Errorf("read the template of DaemonSet %s/%s: %w", ds.Namespace, ds.Name, err)
	}
	template["$patch"] = "replace"
	return json.Marshal(map[string]any{"spec": map[string]any{"template": template}})
}

// RevisionHash names a template. Two templates that hash alike are told apart by the collision count.
func RevisionHash(template *corev1.PodTemplateSpec, collisions *int32) string {
	h := fnv.New32a()
	_, _ = fmt.Fprintf(h, "%v", dump.ForHash(*template))
	if collisions != nil {
		var b [8]byte
		binary.LittleEndian.PutUint32(b[:], uint32(*collisions))
		_, _ = h.Write(b[:])
	}
	return rand.SafeEncodeString(fmt.Sprint(h.Sum32()))
}

// NewRevision makes the ControllerRevision of the DaemonSet's template.
func NewRevision(ds *appsv1.DaemonSet, data []byte, number int64) *appsv1.ControllerRevision {
	hash := RevisionHash(&ds.Spec.Template, ds.Status.CollisionCount)
	labels := map[string]string{}
	for k, v := range ds.Spec.Template.Labels {
		labels[k] = v
	}
	labels[revisionLabel] = hash
	annotations := map[string]string{}
	for k, v := range ds.Annotations { // kubectl rollout history reads the change cause here
		annotations[k] = v
	}
	return &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{
			Name: ds.Name + "-" + hash, Namespace: ds.Namespace,
			Labels: labels, Annotations: annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(ds, Kind)},
		},
		Data:     runtime.RawExtension{Raw: data},
		Revision: number,
	}
}

// HashOf returns the hash under which pods refer to a stored revision: its label, or, on revisions from before
// there was one, its name.
func HashOf(r *appsv1.ControllerRevision) string {
	if hash := r.Labels[revisionLabel]; hash != "" {
		return hash
	}
	return r.Name
}
