package podlife

import (
	"hash/fnv"

	corev1 "k8s.io/api/core/v1"
)

// Hash tells whether a running container still is what its spec asks for. Of a
// running pod only the image may change, so it covers the name and the image.
// Its value is kept with running containers: it must never change between
// releases, or every container of a node would be restarted by an upgrade.
func Hash(c *corev1.Container) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(c.Name + "\x00" + c.Image))
	return h.Sum64()
}
