package shutdown

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/everynode/everynode/internal/decide/podlife"
)

func pod(name string, priority int32) *corev1.Pod {
	p := &corev1.Pod{}
	p.Name, p.Spec.Priority = name, &priority
	if strings.HasPrefix(name, "daemon") {
		p.OwnerReferences = []metav1.OwnerReference{{Kind: "DaemonSet", Controller: ptr.To(true)}}
	}
	return p
}

func text(groups []Group) string {
	var list []string
	for _, g := range groups {
		entry := fmt.Sprint(g.Seconds, ":")
		for _, p := range g.Pods {
			entry += " " + p.Name
		}
		list = append(list, entry)
	}
	return strings.Join(list, "; ")
}

func TestGroups(t *testing.T) {
	unset := pod("unset", 0)
	unset.Spec.Priority = nil
	pods := []*corev1.Pod{pod("web", 0), pod("daemon", 0), pod("low", -10), pod("high", 1000), pod("critical", podlife.CriticalPriority+1), unset}
	for _, c := range []struct {
		name    string
		periods []Period
		pods    []*corev1.Pod
		want    string
	}{
		{"two periods", Split(30*time.Second, 10*time.Second), pods, "20: web low high unset; 10: daemon critical"},
		{"by priority alone", []Period{{Priority: 1000, Seconds: 5}, {Priority: 0, Seconds: 60}}, pods, "60: web daemon low unset; 5: high critical"},
		{"nobody waits for nobody", Split(30*time.Second, 10*time.Second), pods[1:2], "10: daemon"},
		{"no pods", Split(30*time.Second, 10*time.Second), nil, ""},
		{"off", Split(0, 0), pods, ""},
	} {
		if got := text(Groups(c.periods, c.pods)); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	if got := Total(Split(30*time.Second, 10*time.Second)); got != 30*time.Second {
		t.Errorf("total %v", got)
	}
}

func TestGrace(t *testing.T) {
	p := pod("p", 0)
	for own, want := range map[int64]int64{5: 5, 60: 20} {
		p.Spec.TerminationGracePeriodSeconds = &own
		if got := (Group{Seconds: 20}).Grace(p); got != want {
			t.Errorf("own grace %d: %d, want %d", own, got, want)
		}
	}
	p.Spec.TerminationGracePeriodSeconds = nil
	if got := (Group{Seconds: 20}).Grace(p); got != 20 {
		t.Errorf("no own grace: %d", got)
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		total, critical time.Duration
		want            string
	}{
		{0, 0, ""},
		{30 * time.Second, 10 * time.Second, ""},
		{30 * time.Second, 0, ""},
		{time.Millisecond, 0, "shutdownGracePeriod 1ms"},
		{-time.Second, 0, "shutdownGracePeriod -1s"},
		{time.Minute, time.Millisecond, "shutdownGracePeriodCriticalPods 1ms"},
		{time.Second, time.Minute, "is a part of shutdownGracePeriod, which is 1s"},
	} {
		err := Validate(c.total, c.critical)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v, %v: %v, want %q", c.total, c.critical, err, c.want)
		}
	}
}
