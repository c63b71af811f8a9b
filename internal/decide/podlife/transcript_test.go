package podlife

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/everynode/everynode/test/transcript"
)

// TestTranscripts plays testdata/*.txt: a pod in YAML, then commands (see
// world.command) with, below each, what the machine decided. A line "=>" is a status
// as the API would get it: * is ready, # the restart count, + a true condition.
func TestTranscripts(t *testing.T) { transcript.Files(t, play) }

// play returns the transcript with the machine's decisions written anew.
func play(t *testing.T, transcript string) string {
	t.Helper()
	head, script, ok := strings.Cut(transcript, "\n----\n")
	if !ok {
		t.Fatal("a transcript is a pod in YAML, a line ----, and commands")
	}
	pod := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(head), pod); err != nil {
		t.Fatal(err)
	}
	defaults(pod)
	w := newWorld(pod)
	for _, line := range strings.Split(script, "\n") {
		if line == "" || strings.HasPrefix(line, " ") {
			continue
		}
		w.out.WriteString("\n" + line + "\n")
		if !strings.HasPrefix(line, "#") {
			w.command(line)
		}
	}
	return head + "\n----" + w.out.String()
}

// defaults are those that the API server sets.
func defaults(pod *corev1.Pod) {
	pod.Namespace, pod.UID, pod.Generation = "default", "u1", 1
	if pod.Spec.RestartPolicy == "" {
		pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
	}
	if pod.Spec.TerminationGracePeriodSeconds == nil {
		g := int64(30)
		pod.Spec.TerminationGracePeriodSeconds = &g
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if list[i].Image == "" {
				list[i].Image = "image"
			}
			if list[i].ImagePullPolicy == "" {
				list[i].ImagePullPolicy = corev1.PullIfNotPresent
			}
		}
	}
}
