package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/everynode/everynode/internal/decide/garbage"
	"github.com/everynode/everynode/internal/decide/shutdown"
)

func settings(t *testing.T, text string) Settings {
	t.Helper()
	c, err := Parse([]byte(head + text))
	if err != nil {
		t.Fatal(err)
	}
	s, errs := c.Settings()
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return s
}

func TestUpkeepDefaults(t *testing.T) {
	s := settings(t, "")
	if s.LogMaxSize != 10<<20 || s.LogMaxFiles != 5 || s.LogInterval != 10*time.Second || s.Images != garbage.Default ||
		len(s.Thresholds) != 7 || s.PressureTransition != 5*time.Minute || len(s.Reserved) > 0 || len(s.Shutdown) > 0 {
		t.Errorf("%+v", s)
	}
}

func TestUpkeep(t *testing.T) {
	s := settings(t, `
containerLogMaxSize: 1Mi
containerLogMaxFiles: 3
containerLogMonitorInterval: 3s
imageGCHighThresholdPercent: 50
imageGCLowThresholdPercent: 40
imageMinimumGCAge: 0s
imageMaximumGCAge: 24h
evictionHard: {memory.available: 5%}
evictionSoft: {nodefs.available: 1Gi}
evictionSoftGracePeriod: {nodefs.available: 1m}
evictionMaxPodGracePeriod: 30
evictionPressureTransitionPeriod: 30s
systemReserved: {cpu: 500m, memory: 200Mi}
kubeReserved: {memory: 100Mi, pid: "1000"}
shutdownGracePeriod: 30s
shutdownGracePeriodCriticalPods: 10s
`)
	if s.LogMaxSize != 1<<20 || s.LogMaxFiles != 3 || s.LogInterval != 3*time.Second || s.PressureTransition != 30*time.Second || s.MaxPodGrace != 30 {
		t.Errorf("%+v", s)
	}
	if s.Images != (garbage.Policy{HighPercent: 50, LowPercent: 40, MaxAge: 24 * time.Hour}) {
		t.Errorf("images %+v", s.Images)
	}
	if len(s.Thresholds) != 3 { // memory of the machine and of all pods, disk
		t.Errorf("thresholds %+v", s.Thresholds)
	}
	if m, c := s.Reserved[corev1.ResourceMemory], s.Reserved[corev1.ResourceCPU]; m.Value() != 300<<20 || c.MilliValue() != 500 || len(s.Reserved) != 3 {
		t.Errorf("reserved %v", s.Reserved)
	}
	if diff := cmp.Diff(shutdown.Split(30*time.Second, 10*time.Second), s.Shutdown); diff != "" {
		t.Errorf("shutdown (-want +got):\n%s", diff)
	}
	s = settings(t, "shutdownGracePeriodByPodPriority: [{priority: 0, shutdownGracePeriodSeconds: 5}]\n")
	if diff := cmp.Diff([]shutdown.Period{{Seconds: 5}}, s.Shutdown); diff != "" {
		t.Errorf("shutdown by priority (-want +got):\n%s", diff)
	}
}

func TestUpkeepRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"containerLogMaxSize: big":              `containerLogMaxSize: Invalid value: "big": must be a quantity like 10Mi`,
		`containerLogMaxSize: "0"`:              "containerLogMaxSize: Invalid value",
		"containerLogMaxFiles: 1":               "containerLogMaxFiles: Invalid value: 1: must be at least 2",
		"containerLogMonitorInterval: 0s":       "containerLogMonitorInterval: Invalid value",
		"imageGCHighThresholdPercent: 120":      "imageGCHighThresholdPercent 120: must be between 0 and 100",
		"imageGCLowThresholdPercent: 90":        "imageGCLowThresholdPercent 90: must be less than imageGCHighThresholdPercent",
		"evictionHard: {disk: 10%}":             `evictionHard: Unsupported value: "disk"`,
		"evictionSoft: {memory.available: 1Gi}": "evictionSoftGracePeriod[memory.available]: Required value",
		"evictionPressureTransitionPeriod: -1s": "evictionPressureTransitionPeriod: Invalid value",
		"evictionMaxPodGracePeriod: -1":         "evictionMaxPodGracePeriod: Invalid value: -1: must be at least 0",
		"systemReserved: {gpu: 1}":              "systemReserved: got a number, want a string",
		`kubeReserved: {gpu: "1"}`:              `kubeReserved: Unsupported value: "gpu": supported values: "cpu"`,
		"kubeReserved: {memory: -1Mi}":          `kubeReserved[memory]: Invalid value: "-1Mi": must be a quantity`,
		"shutdownGracePeriod: soon":             `shutdownGracePeriod: Invalid value: "soon": must be a duration like 1m30s`,
		"shutdownGracePeriod: 1ms":              "shutdownGracePeriod 1ms: must be a second",
		"shutdownGracePeriodCriticalPods: 5s":   "shutdownGracePeriodCriticalPods 5s: is a part of shutdownGracePeriod",
		"shutdownGracePeriod: 5s\nshutdownGracePeriodByPodPriority: [{priority: 0, shutdownGracePeriodSeconds: 5}]": "cannot be given together",
	} {
		if _, err := Parse([]byte(head + text + "\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\nwant %q", text, err, want)
		}
	}
}
