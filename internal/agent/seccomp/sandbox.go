package seccomp

import (
	"encoding/json"
	"fmt"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/everynode/everynode/internal/atomicfile"
)

// WriteSandbox writes the profile of sandboxes to a file, in the OCI's format.
func WriteSandbox(path string) error {
	profile, err := sandbox()
	if err != nil {
		return fmt.Errorf("seccomp profile of sandboxes: %w", err)
	}
	text, err := json.Marshal(profile)
	if err != nil {
		return fmt.Errorf("seccomp profile of sandboxes: %w", err)
	}
	if _, err := atomicfile.WriteIfChanged(path, text); err != nil {
		return fmt.Errorf("seccomp profile of sandboxes: %w", err)
	}
	return nil
}

// sandbox is the default profile of containers without any capability, for the machine's own
// instruction set only.
func sandbox() (*specs.LinuxSeccomp, error) {
	profile, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}})
	if err != nil {
		return nil, err
	}
	profile.Architectures = nil // none named: the runtime's own
	return profile, nil
}
