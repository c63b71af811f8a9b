package daemonset

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	machine "github.com/everynode/everynode/internal/decide/daemonset"
)

// TestBeginsWithAllThatIsStored: the server's cache is behind, and does not show the pod that the leader before made
// a moment ago. A list of any version is answered from it; only a consistent one shows the pod.
func TestBeginsWithAllThatIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ds := testDaemonSet()
		client := fake.NewClientset(testNode("n1"), ds)
		before := corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "ops", Name: "agent-x", UID: "u", Labels: ds.Spec.Template.Labels,
				OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(ds, machine.Kind)},
			},
			Spec: corev1.PodSpec{NodeName: "n1"},
		}
		client.PrependReactor("list", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
			l, ok := a.(clienttesting.ListActionImpl)
			if ok && l.ListOptions.ResourceVersion == "" {
				return true, &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "9"}, Items: []corev1.Pod{before}}, nil
			}
			return true, &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: "5"}}, nil
		})
		c := &cluster{t: t, client: client, events: record.NewFakeRecorder(100)}
		c.writer = &recordingWriter{ClientWriter: ClientWriter{Client: client}}
		c.start()
		defer func() { c.stop() }()
		c.rest()
		if created, _, _ := c.writer.writes(); len(created) > 0 {
			t.Errorf("created %v beside a pod that was stored", created)
		}
	})
}

// TestListAgainTellsWhatHasGone: a watch that breaks off is followed by a list, and what is not in it has gone.
func TestListAgainTellsWhatHasGone(t *testing.T) {
	var told []string
	k := &kind[*corev1.Pod, string]{
		inbox: newInbox(), known: map[types.NamespacedName]string{}, mutants: cache.NewCacheMutationDetector("test"),
		set: func(before string, seen bool, now *corev1.Pod) string {
			told = append(told, fmt.Sprintf("%s %s after %q %v", now.Name, now.UID, before, seen))
			return string(now.UID)
		},
		remove: func(key types.NamespacedName, last string) { told = append(told, key.Name+" gone "+last) },
	}
	pod := func(name, uid string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ops", Name: name, UID: types.UID(uid)}}
	}
	for what, tc := range []struct {
		do   func() error
		want []string
	}{
		{func() error { return k.Replace([]any{pod("a", "1"), pod("b", "2")}, "5") }, []string{`a 1 after "" false`, `b 2 after "" false`}},
		{func() error { return k.Update(pod("a", "1")) }, []string{`a 1 after "1" true`}},
		{func() error { return k.Delete(pod("a", "1")) }, []string{"a gone 1"}},
		{func() error { return k.Delete(pod("a", "1")) }, nil},
		{func() error { return k.Replace([]any{pod("c", "3")}, "9") }, []string{"b gone 2", `c 3 after "" false`}},
	} {
		told = nil
		if err := tc.do(); err != nil {
			t.Fatal(err)
		}
		for _, f := range k.inbox.take() {
			f()
		}
		if d := cmp.Diff(tc.want, told); d != "" {
			t.Errorf("step %d: %s", what, d)
		}
	}
	if k.Update(&corev1.Node{}) == nil {
		t.Error("a node was taken for a pod")
	}
}
