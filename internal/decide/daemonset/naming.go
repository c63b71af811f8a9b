package daemonset

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

const (
	// maxNameLength lets a pod's name be its host name.
	maxNameLength = 63
	suffixLength  = 8
	// nameAlphabet has no vowels, so that no words come out, and no digits that look like letters.
	nameAlphabet = "bcdfghjklmnpqrstvwxz2456789"
)

// podName returns the name of the pod that a DaemonSet has on a node: the DaemonSet's name and eight characters
// that follow from its UID, the node, the revision and the attempt. Whoever repeats a create whose answer was
// lost uses the same name, and meets AlreadyExists instead of making a second pod.
func podName(set string, uid types.UID, node, revision string, attempt int) string {
	if limit := maxNameLength - suffixLength - 1; len(set) > limit {
		set = strings.TrimRight(set[:limit], "-.")
	}
	return set + "-" + nameSuffix(uid, node, revision, attempt)
}

func nameSuffix(uid types.UID, node, revision string, attempt int) string {
	var buf [256]byte
	b := buf[:0]
	for _, part := range []string{string(uid), node, revision} {
		b = append(append(b, part...), 0)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(attempt))
	sum := sha256.Sum256(b)
	n := binary.BigEndian.Uint64(sum[:8])

	var suffix [suffixLength]byte
	for i := range suffix {
		suffix[i] = nameAlphabet[n%uint64(len(nameAlphabet))]
		n /= uint64(len(nameAlphabet))
	}
	return string(suffix[:])
}
