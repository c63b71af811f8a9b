package node

import (
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
}
