package manifests

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Annotations of static pods. Those of kubernetes.io are the kubelet's.
const (
	hashAnnotation   = "kubernetes.io/config.hash"
	sourceAnnotation = "kubernetes.io/config.source"
	sourceFile       = "file"
	// FileAnnotation names the file that a static pod comes from.
	FileAnnotation = "everynode.io/manifest"
)

// systemPriorities are those of the two classes that every cluster has; a node that knows no server
// knows them too.
var systemPriorities = map[string]int32{"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}

// staticPod makes the pod that a node runs of what a file says.
func staticPod(read *corev1.Pod, file, node string) (*corev1.Pod, error) {
	uid, err := uidOf(read, node)
	if err != nil {
		return nil, err
	}
	pod := &corev1.Pod{Spec: *read.Spec.DeepCopy()}
	pod.ObjectMeta = metav1.ObjectMeta{
		Name: read.Name + "-" + strings.ToLower(node), Namespace: read.Namespace, UID: uid,
		Labels: read.Labels, Annotations: annotations(read, uid, file),
	}
	if pod.Namespace == "" {
		pod.Namespace = metav1.NamespaceDefault
	}
	pod.Spec.NodeName = node
	tolerateNoExecute(&pod.Spec)
	if p, known := systemPriorities[pod.Spec.PriorityClassName]; known && pod.Spec.Priority == nil {
		pod.Spec.Priority = &p
	}
	pod.Status.Phase = corev1.PodPending
	SetDefaults(pod)
	return pod, validate(read, pod)
}

// uidOf is a hash of what the file says, before defaults, which another version of this program
// might set otherwise: an upgrade must not make it another pod. Where the file lies is of no import.
func uidOf(read *corev1.Pod, node string) (types.UID, error) {
	text, err := json.Marshal(read)
	if err != nil {
		return "", fmt.Errorf("pod %s cannot be hashed: %w", read.Name, err)
	}
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%s\nnode:%s", text, node)
	return types.UID(hex.EncodeToString(h.Sum(nil)[:16])), nil
}

func annotations(read *corev1.Pod, uid types.UID, file string) map[string]string {
	a := map[string]string{}
	for k, v := range read.Annotations {
		a[k] = v
	}
	delete(a, corev1.MirrorPodAnnotationKey)
	a[hashAnnotation], a[sourceAnnotation], a[FileAnnotation] = string(uid), sourceFile, file
	return a
}

// IsStatic tells a pod that this package has made from any that the API server has.
func IsStatic(pod *corev1.Pod) bool {
	return pod.ResourceVersion == "" && pod.Annotations[sourceAnnotation] == sourceFile && pod.Annotations[hashAnnotation] == string(pod.UID)
}

// tolerateNoExecute keeps the pod where it is, whatever befalls the node.
func tolerateNoExecute(spec *corev1.PodSpec) {
	all := corev1.Toleration{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute}
	for i := range spec.Tolerations {
		if t := &spec.Tolerations[i]; t.MatchToleration(&all) {
			*t = all
			return
		}
	}
	spec.Tolerations = append(spec.Tolerations, all)
}

// FullName tells static pods of one node apart, and mirror pods.
func FullName(pod *corev1.Pod) string { return pod.Namespace + "/" + pod.Name }
