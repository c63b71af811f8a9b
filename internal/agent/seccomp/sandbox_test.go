package seccomp

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestSandboxMayWaitAndLittleElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sandbox.json")
	if err := WriteSandbox(path); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var profile specs.LinuxSeccomp
	if err := json.Unmarshal(text, &profile); err != nil {
		t.Fatal(err)
	}
	if profile.DefaultAction != specs.ActErrno {
		t.Errorf("what is not named is answered with %s", profile.DefaultAction)
	}
	if len(profile.Architectures) > 0 {
		t.Errorf("the filter has to be made for %v", profile.Architectures)
	}
	allowed := func(call string) bool {
		return slices.ContainsFunc(profile.Syscalls, func(s specs.LinuxSyscall) bool {
			return s.Action == specs.ActAllow && len(s.Args) == 0 && slices.Contains(s.Names, call)
		})
	}
	// What programs that wait and collect orphans do, and what runc does between loading the filter
	// and executing them.
	for _, call := range []string{
		"pause", "ppoll", "futex", "nanosleep", "wait4", "waitid", "rt_sigaction", "rt_sigsuspend", "exit_group", "write",
		"execve", "capset", "prctl", "setgroups", "setresuid", "setresgid", "openat", "getdents64", "fcntl",
	} {
		if !allowed(call) {
			t.Errorf("%s is not allowed", call)
		}
	}
	for _, call := range []string{"mount", "unshare", "setns", "bpf", "kexec_load", "init_module", "reboot", "add_key", "userfaultfd"} {
		if allowed(call) {
			t.Errorf("%s is allowed", call)
		}
	}
}
