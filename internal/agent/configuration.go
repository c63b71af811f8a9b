package agent

import (
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/ptr"

	"github.com/everynode/everynode/internal/agent/node"
	"github.com/everynode/everynode/internal/decide/shutdown"
)

// kubeletConfiguration is what /configz shows: this agent in the kubelet's terms, as far as both
// have them.
func (o Options) kubeletConfiguration() *kubeletconfig.KubeletConfiguration {
	c := &kubeletconfig.KubeletConfiguration{
		StaticPodPath:            o.PodManifestPath,
		Port:                     int32(o.ListenPort),
		Address:                  "0.0.0.0",
		ContainerRuntimeEndpoint: o.RuntimeEndpoint,
		CgroupRoot:               o.cgroupRoot(),
		CgroupDriver:             "cgroupfs",
		CgroupsPerQOS:            ptr.To(true),
		ClusterDomain:            "cluster.local",
		RotateCertificates:       true,
		ServerTLSBootstrap:       true,
		PodLogsDir:               "/var/log/pods",
		Authentication: kubeletconfig.KubeletAuthentication{
			Anonymous: kubeletconfig.KubeletAnonymousAuthentication{Enabled: ptr.To(false)},
			Webhook:   kubeletconfig.KubeletWebhookAuthentication{Enabled: ptr.To(true), CacheTTL: metav1.Duration{Duration: 2 * time.Minute}},
		},
		Authorization: kubeletconfig.KubeletAuthorization{Mode: kubeletconfig.KubeletAuthorizationModeWebhook},
	}
	node.Configure(c)
	o.configureUpkeep(c)
	c.Kind, c.APIVersion = "KubeletConfiguration", kubeletconfig.SchemeGroupVersion.String()
	if o.ListenLoopbackOnly {
		c.Address = "127.0.0.1"
	}
	return c
}

// configureUpkeep says how the node looks after itself.
func (o Options) configureUpkeep(c *kubeletconfig.KubeletConfiguration) {
	s, _ := o.Upkeep.Settings()
	c.ContainerLogMaxSize = resource.NewQuantity(s.LogMaxSize, resource.BinarySI).String()
	c.ContainerLogMaxFiles = ptr.To(int32(s.LogMaxFiles))
	c.ContainerLogMonitorInterval = &metav1.Duration{Duration: s.LogInterval}
	c.ImageGCHighThresholdPercent, c.ImageGCLowThresholdPercent = ptr.To(int32(s.Images.HighPercent)), ptr.To(int32(s.Images.LowPercent))
	c.ImageMinimumGCAge, c.ImageMaximumGCAge = metav1.Duration{Duration: s.Images.MinAge}, metav1.Duration{Duration: s.Images.MaxAge}
	c.EvictionHard, c.EvictionSoft, c.EvictionSoftGracePeriod = s.Eviction.Hard, s.Eviction.Soft, s.Eviction.SoftGrace
	c.EvictionMinimumReclaim, c.EvictionMaxPodGracePeriod = s.Eviction.MinimumReclaim, int32(s.MaxPodGrace)
	c.EvictionPressureTransitionPeriod = metav1.Duration{Duration: s.PressureTransition}
	c.SystemReserved, c.KubeReserved = o.Upkeep.SystemReserved, o.Upkeep.KubeReserved
	c.EnforceNodeAllocatable = []string{"pods"}
	for _, p := range s.Shutdown {
		if p.Daemons {
			c.ShutdownGracePeriodCriticalPods = metav1.Duration{Duration: time.Duration(p.Seconds) * time.Second}
			c.ShutdownGracePeriod = metav1.Duration{Duration: shutdown.Total(s.Shutdown)}
		}
	}
	for _, p := range o.Upkeep.ShutdownGracePeriodByPodPriority {
		c.ShutdownGracePeriodByPodPriority = append(c.ShutdownGracePeriodByPodPriority,
			kubeletconfig.ShutdownGracePeriodByPodPriority{Priority: p.Priority, ShutdownGracePeriodSeconds: p.ShutdownGracePeriodSeconds})
	}
}
