package daemonset

import (
	"bytes"
	"cmp"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
)

// History says what a DaemonSet's revisions need. Current is the stored revision of the template as it is; with
// none, Create is to be stored and is the current one then.
type History struct {
	Current *appsv1.ControllerRevision
	Create  *appsv1.ControllerRevision
	// Number is what the current revision's number should be: above every other's. It rises when an old
	// template comes back (a rollback).
	Number int64
	// Duplicates hold the same template as Current: pods that carry their hash are relabelled, then they go.
	Duplicates []*appsv1.ControllerRevision
	// Old are the others, from the oldest to the newest.
	Old []*appsv1.ControllerRevision
}

// PlanHistory compares the DaemonSet, whose RevisionData is data, with the revisions that it owns.
func PlanHistory(ds *appsv1.DaemonSet, data []byte, owned []*appsv1.ControllerRevision) History {
	var h History
	var current []*appsv1.ControllerRevision
	for _, r := range owned {
		if bytes.Equal(r.Data.Raw, data) {
			current = append(current, r)
		} else {
			h.Old = append(h.Old, r)
		}
	}
	sortRevisions(h.Old)
	sortRevisions(current)
	h.Number = 1
	if n := len(h.Old); n > 0 {
		h.Number = h.Old[n-1].Revision + 1
	}
	if n := len(current); n > 0 {
		h.Current, h.Duplicates = current[n-1], current[:n-1]
		h.Number = max(h.Number, h.Current.Revision)
	} else {
		h.Create = NewRevision(ds, data, h.Number)
	}
	return h
}

// Prune returns the old revisions to delete, oldest first: those above the limit that no pod carries.
func (h *History) Prune(limit int, carried func(hash string) bool) []*appsv1.ControllerRevision {
	var pruned []*appsv1.ControllerRevision
	surplus := len(h.Old) - limit
	for _, r := range h.Old {
		if len(pruned) >= surplus {
			break
		}
		if !carried(HashOf(r)) {
			pruned = append(pruned, r)
		}
	}
	return pruned
}

func sortRevisions(rs []*appsv1.ControllerRevision) {
	slices.SortFunc(rs, func(a, b *appsv1.ControllerRevision) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), cmp.Compare(a.Name, b.Name))
	})
}
