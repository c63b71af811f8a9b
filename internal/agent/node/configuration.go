package node

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
)

// Configure says in the kubelet's terms how this package is set up.
func Configure(c *kubeletconfig.KubeletConfiguration) {
	c.MaxPods = podsPerNode
	c.NodeStatusUpdateFrequency = metav1.Duration{Duration: measureEvery}
	c.NodeStatusReportFrequency = metav1.Duration{Duration: reportAtLeast}
	c.NodeLeaseDurationSeconds = int32(leaseDuration / time.Second)
	c.EvictionPressureTransitionPeriod = metav1.Duration{Duration: pressureHold}
	c.EvictionHard = map[string]string{
		"memory.available":  fmt.Sprintf("%dMi", memoryPressureBytes>>20),
		"nodefs.available":  fmt.Sprintf("%d%%", diskPressurePercent),
		"nodefs.inodesFree": fmt.Sprintf("%d%%", inodePressurePercent),
		"pid.available":     fmt.Sprintf("%d%%", pidPressurePercent),
	}
}
