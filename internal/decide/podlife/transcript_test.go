package podlife

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata")

// TestTranscripts plays testdata/*.txt: a pod in YAML, then commands (see
// world.command) with, below each, what the machine decided. A line "=>" is a status
// as the API would get it: * is ready, # the restart count, + a true condition.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts in testdata", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); diff != "" && !*update {
				t.Errorf("the machine decides otherwise now (-want +got; -update rewrites):\n%s", diff)
			}
		})
	}
}

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
