// Package seccomp says which system calls the process of a pod's sandbox may make. That process
// only waits, and is not the user's: containers have whatever profile their pod asks for.
//
// The runtime's own default profile would do too, and is what other runtimes than containerd get.
// But it also allows the calls of 32-bit programs, and a filter for three instruction sets takes
// runc 20 ms of CPU to make, for each pod anew; one for the machine's own takes next to nothing.
package seccomp
