package supervise

import (
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/everynode/everynode/internal/cli/containerd"
	"github.com/everynode/everynode/internal/cli/layout"
)

// Spec is all that the supervisor has to know. `up` writes it to a file, and compares the one it
// would write with the one that runs to tell whether anything changed.
type Spec struct {
	Layout     layout.Layout    `json:"layout"`
	NodeName   string           `json:"nodeName"`
	Tools      containerd.Tools `json:"tools"`
	ServerArgs []string         `json:"serverArgs"` // of `everynode server`
	AgentArgs  []string         `json:"agentArgs"`  // of `everynode agent`
	BuildID    string           `json:"buildID"`    // of the program, so that a new build is told from the running one
	Debug      bool             `json:"debug"`
}

// Validate tells what is missing.
func (s *Spec) Validate() error {
	switch {
	case s.Layout.DataDir == "" || s.Layout.RunDir == "":
		return errors.New("supervisor: no data or run directory")
	case s.NodeName == "":
		return errors.New("supervisor: no node name")
	case s.Tools.Containerd == "":
		return errors.New("supervisor: no containerd")
	case len(s.ServerArgs) == 0 || len(s.AgentArgs) == 0:
		return errors.New("supervisor: nothing to run")
	}
	return nil
}

// Difference says in words how want differs from s, the spec that runs; empty when it does not.
func (s *Spec) Difference(want *Spec) string {
	switch {
	case s.Layout.DataDir != want.Layout.DataDir:
		return fmt.Sprintf("it runs with --data-dir %s, not %s", s.Layout.DataDir, want.Layout.DataDir)
	case !slices.Equal(s.ServerArgs, want.ServerArgs) || !slices.Equal(s.AgentArgs, want.AgentArgs) || s.Debug != want.Debug:
		return "it runs with other flags"
	case s.Tools != want.Tools:
		return "containerd, runc or the CNI plugins have moved since it started"
	case s.BuildID != want.BuildID:
		return "it runs another build of everynode"
	}
	return ""
}

// UpgradesTo tells whether want differs in nothing but the build: then the processes can be
// exchanged under the pods, which keep running.
func (s *Spec) UpgradesTo(want *Spec) bool {
	same := *s
	same.BuildID = want.BuildID
	return s.BuildID != want.BuildID && same.Difference(want) == ""
}

// WriteFile stores the spec where the supervisor reads it.
func (s *Spec) WriteFile() error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.Layout.SupervisorSpec(), append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("supervisor: %w", err)
	}
	return nil
}

// ReadSpec loads the spec of an installation.
func ReadSpec(l layout.Layout) (*Spec, error) {
	text, err := os.ReadFile(l.SupervisorSpec())
	if err != nil {
		return nil, fmt.Errorf("supervisor: %w", err)
	}
	s := &Spec{}
	if err := json.Unmarshal(text, s); err != nil {
		return nil, fmt.Errorf("supervisor: %s: %w", l.SupervisorSpec(), err)
	}
	return s, s.Validate()
}

// BuildID returns the Go build id of the running program: equal exactly when the program is.
func BuildID() (string, error) {
	file, err := elf.Open("/proc/self/exe")
	if err != nil {
		return "", fmt.Errorf("build id: %w", err)
	}
	defer func() { _ = file.Close() }()
	section := file.Section(".note.go.buildid")
	if section == nil {
		return "", errors.New("build id: the program has none; build it with the go command")
	}
	note, err := section.Data()
	if err != nil {
		return "", fmt.Errorf("build id: %w", err)
	}
	const header = 16 // name size, text size, tag, "Go\0\0"
	if len(note) <= header {
		return "", fmt.Errorf("build id: odd note %s", hex.EncodeToString(note))
	}
	return string(note[header:]), nil
}
