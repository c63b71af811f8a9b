// Package garbage decides which images a node no longer needs to keep. It is pure: it knows no
// runtime and no clock. internal/agent/images gathers the facts and removes what is said.
//
// The rules are the kubelet's:
// https://kubernetes.io/docs/concepts/architecture/garbage-collection/#container-image-lifecycle
package garbage

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Policy says when images go.
type Policy struct {
	// HighPercent of the disk in use starts a collection, LowPercent ends it.
	HighPercent, LowPercent int
	// MinAge is how long an image stays after it was first seen, used or not: a pod may be about to
	// use it.
	MinAge time.Duration
	// MaxAge is how long an image may stay unused, whatever room there is. Zero: for ever.
	MaxAge time.Duration
}

// Default is the kubelet's policy.
var Default = Policy{HighPercent: 85, LowPercent: 80, MinAge: 2 * time.Minute}

// Validate reports the first value that cannot work, by the name that a configuration file has for it.
func (p Policy) Validate() error {
	switch {
	case p.HighPercent < 0 || p.HighPercent > 100:
		return fmt.Errorf("imageGCHighThresholdPercent %d: must be between 0 and 100", p.HighPercent)
	case p.LowPercent < 0 || p.LowPercent > 100:
		return fmt.Errorf("imageGCLowThresholdPercent %d: must be between 0 and 100", p.LowPercent)
	case p.LowPercent >= p.HighPercent:
		return fmt.Errorf("imageGCLowThresholdPercent %d: must be less than imageGCHighThresholdPercent, which is %d", p.LowPercent, p.HighPercent)
	case p.MinAge < 0:
		return fmt.Errorf("imageMinimumGCAge %v: must not be negative", p.MinAge)
	case p.MaxAge < 0:
		return fmt.Errorf("imageMaximumGCAge %v: must not be negative", p.MaxAge)
	case p.MaxAge > 0 && p.MaxAge <= p.MinAge:
		return fmt.Errorf("imageMaximumGCAge %v: must be more than imageMinimumGCAge, which is %v", p.MaxAge, p.MinAge)
	}
	return nil
}

// Off tells that the policy never asks for a collection.
func (p Policy) Off() bool { return p.HighPercent == 100 && p.MaxAge == 0 }

// Image is one that the runtime has.
type Image struct {
	ID   string
	Size int64
	// Kept: a container has it, the runtime has pinned it, or the machine came with it.
	Kept bool
	// FirstSeen is when the agent met it, LastUsed when a container was last seen to have it; zero:
	// not since the agent started.
	FirstSeen, LastUsed time.Time
}

// Disk is the file system of the images, in bytes.
type Disk struct{ Capacity, Available int64 }

// UsedPercent of the disk, rounded as users know it.
func (d Disk) UsedPercent() int {
	if d.Capacity <= 0 {
		return 0
	}
	return 100 - int(min(d.Available, d.Capacity)*100/d.Capacity)
}

// Excess is how many bytes have to be freed now: none below the high threshold, and from there on
// all above the low one.
func (p Policy) Excess(d Disk) int64 {
	if d.Capacity <= 0 || d.UsedPercent() < p.HighPercent {
		return 0
	}
	return max(d.Capacity*int64(100-p.LowPercent)/100-min(d.Available, d.Capacity), 0)
}

// Unused lists the images that may go, in the order in which they should: the least recently used
// first, and of those the ones that have been here longest.
func (p Policy) Unused(images []Image, now time.Time) []Image {
	var list []Image
	for _, image := range images {
		if !image.Kept && now.Sub(image.FirstSeen) >= p.MinAge {
			list = append(list, image)
		}
	}
	slices.SortFunc(list, func(a, b Image) int {
		return cmp.Or(a.LastUsed.Compare(b.LastUsed), a.FirstSeen.Compare(b.FirstSeen), cmp.Compare(a.ID, b.ID))
	})
	return list
}

// Old lists the images that have not been used for longer than MaxAge. Since is when the agent
// began to look: before, it cannot know.
func (p Policy) Old(images []Image, since, now time.Time) []Image {
	if p.MaxAge == 0 || now.Sub(since) <= p.MaxAge {
		return nil
	}
	return slices.DeleteFunc(p.Unused(images, now), func(image Image) bool { return now.Sub(image.LastUsed) <= p.MaxAge })
}

// Enough is the shortest beginning of a list of images that holds at least that many bytes; all of
// it, if none does.
func Enough(images []Image, bytes int64) []Image {
	var sum int64
	for i, image := range images {
		if sum >= bytes {
			return images[:i]
		}
		sum += image.Size
	}
	return images
}

// Next is when another image becomes old enough to go; zero if none does. A node that is too full
// looks again then, not a whole period later.
func (p Policy) Next(images []Image, now time.Time) time.Time {
	var next time.Time
	for _, image := range images {
		at := image.FirstSeen.Add(p.MinAge)
		if !image.Kept && at.After(now) && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return next
}
