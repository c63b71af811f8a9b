// Package ranges gives every node its range of pod addresses, a part of the cluster's.
//
// A node gets its range as it is created: the API server of the leading server asks the [Ledger], and the node is
// stored with its range in one write. A node that came another way (through a server that does not lead, or while
// nobody led) is seen by the [Controller], which writes the range to it. Either way one ledger decides, so that no two
// nodes get the same addresses:
//
//	free ──With──▶ promised ──node seen──▶ taken ──node deleted──▶ free
//	  ▲               │
//	  └──refused──────┘      (a promise whose write has an unknown end is kept for the node of that name)
//
// The ledger belongs to a term of leadership. It is filled with what the nodes have before it gives anything away; when
// the term ends it cancels the creates that are under way, and the controller returns after they have.
//
// Called by internal/controllers/housekeeping and internal/apiserver; which ranges are free is upstream's cidrset.
package ranges
