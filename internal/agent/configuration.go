package agent

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/ptr"

	"github.com/everynode/everynode/internal/agent/node"
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
	c.Kind, c.APIVersion = "KubeletConfiguration", kubeletconfig.SchemeGroupVersion.String()
	if o.ListenLoopbackOnly {
		c.Address = "127.0.0.1"
	}
	return c
}
