// Package supervise keeps the three processes of `everynode up` running: containerd, the server
// and the agent.
//
// The supervisor is a detached process of its own. It starts containerd and the server, then the
// agent, starts each of them again with a growing delay when it ends, and answers on a unix socket
// what it runs and how that is going:
//
//	         start           ready            exit
//	waiting ───────▶ starting ─────▶ ready ─────────▶ restarting ──▶ starting …
//	                     └──────── exit ──────────────────▲
//
// Its children get SIGKILL when it dies, so that there is never half of an installation with
// nobody in charge; containers and their shims are no children of it and outlive everything here.
// It never looks into the cluster's state: what runs on the node is the agent's business, and
// removing it is the tear-down's (package teardown).
//
// The commands up and down use Start and Client; the hidden command supervise calls Run.
package supervise
