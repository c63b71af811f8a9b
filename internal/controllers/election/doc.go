// Package election lets one server at a time run the controllers and the scheduler, when several
// servers share a store.
//
// There is one Lease, kube-system/everynode-controllers, for all led work. [Run] campaigns for it,
// runs the work while it is held, and campaigns again when it is lost or when the work fails:
//
//	campaign ──acquired──▶ lead(ctx) ──ctx over, or lead failed──▶ stop lead ──▶ release ──▶ back-off ─┐
//	    ▲                                                                                              │
//	    └──────────────────────────────────────────────────────────────────────────────────────────────┘
//
// A Lease alone cannot stop a leader that is slow to notice its loss. Three things make that safe:
// lead's context ends 12 s after the last renewal, 3 s before anyone else may lead; the
// clients made from [Fence] refuse every request from that moment on; and what a controller makes
// has a name that a second leader would choose too.
//
// The Lease is released only after the led work has returned. A server that was killed leads
// again at once, because its identity ([Identity]) stays with its data directory and the holder of
// a Lease may always renew it.
//
// Called by internal/cli. It never stops the API server: that needs no leader.
package election
