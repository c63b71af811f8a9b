// Package housekeeping runs upstream's own controllers for everything a cluster needs but this
// project does not exist for: deleting namespaces, collecting garbage, service accounts and their
// tokens, the root CA in every namespace, endpoints, deployments, node address ranges, volumes,
// disruption budgets and certificates.
//
// The list is one table ([Controllers]); each row says what its controller does. A resource is
// only served when its controller runs, so the table and the API server's list of resources
// change together.
//
// Called by internal/controllers, once per term of leadership. It decides nothing itself: it
// constructs, starts and stops. It never imports kube-controller-manager's own command (its flags,
// HTTP server and health checks have no place here), and it never throttles: the API server is in
// the same process, and back-pressure comes from it.
//
// Two things are done otherwise than upstream does them, to stay small:
//
//   - Of ConfigMaps only kube-root-ca.crt is watched; no controller holds all of them in full.
//   - The garbage collector watches metadata, not whole objects, of every resource whose full
//     objects are not cached anyway ([sharedResources]).
package housekeeping
