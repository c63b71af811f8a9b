package daemonset

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// claim is a change of owner that a pod needs. Until an orphan is adopted, its slot decides nothing: the pod may
// be the one that the node should have. A released pod leaves its slot at once.
type claim struct {
	name    string
	uid     types.UID
	release bool
	sent    bool // in flight, or done and not seen yet
	retries int32
	retryAt time.Time
	at      int32 // position in Set.unowned
}

func claimBefore(a, b *claim) bool {
	if !a.retryAt.Equal(b.retryAt) {
		return a.retryAt.Before(b.retryAt)
	}
	return a.name < b.name
}

// setClaim notes what the pod's role asks for.
func (s *Set) setClaim(p *Pod, r role) {
	c := s.claims[p.Name]
	wanted := (r == orphan && p.Node != "") || r == released
	if c != nil && (!wanted || c.uid != p.UID || c.release != (r == released)) {
		s.dropClaim(p.Name, "")
		c = nil
	}
	if wanted && c == nil {
		c = &claim{name: p.Name, uid: p.UID, release: r == released}
		s.claims[p.Name] = c
		s.unowned.put(c)
	}
}

func (s *Set) dropClaim(name string, uid types.UID) {
	if c := s.claims[name]; c != nil && (uid == "" || c.uid == uid) {
		s.unowned.remove(c)
		delete(s.claims, name)
	}
}

// claim hands out adoptions and releases.
func (s *Set) claim(now time.Time, room int, a *Actions) {
	for a.Len() < room && s.claimable(now) {
		c := s.unowned.pop()
		c.sent = true
		a.Claims = append(a.Claims, Claim{Name: c.name, UID: c.uid, Release: c.release})
	}
}

func (s *Set) claimable(now time.Time) bool {
	return s.unowned.len() > 0 && !s.unowned.min().retryAt.After(now)
}

// ClaimFailed reports that an adoption or release did not work; it is tried again after a delay unless the pod
// is seen changed or gone.
func (s *Set) ClaimFailed(name string, uid types.UID, now time.Time) {
	c := s.claims[name]
	if c == nil || c.uid != uid || !c.sent {
		return
	}
	c.sent = false
	c.retryAt = now.Add(doubled(firstRetry, c.retries, maxRetry))
	c.retries++
	s.unowned.put(c)
}
