// Package shutdown stops this node's pods in order when the machine shuts down: it asks systemd's
// login manager to wait (https://www.freedesktop.org/software/systemd/man/latest/systemd-inhibit.html),
// hears of the shutdown, has ordinary pods stop and then daemons and critical ones, and lets the
// machine go on.
//
// decide/shutdown has the order and the times; internal/agent makes one Watcher.
package shutdown
