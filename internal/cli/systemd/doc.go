// Package systemd installs and removes everynode's processes as systemd services.
//
// A Service is a role of the program (server, agent) and its arguments; Manager writes its unit,
// has systemd start it and waits until it says that it is ready, or removes it again. What a unit
// says is decided by Service.Unit alone. The commands install and uninstall call it; it knows
// nothing of flags or of what a role does.
package systemd
