package pods

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
)

// cniResults is where libcni, inside containerd, notes what networks gave to sandboxes.
const cniResults = "/var/lib/cni/results"

// dropBrokenResult removes the note of a sandbox's network that a kill of containerd has cut off.
// With it, containerd can never take the network down, nor the sandbox; without any it can.
func dropBrokenResult(dir, sandbox string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*-"+sandbox+"-*"))
	errs := []error{err}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil && !json.Valid(text) {
			err = os.Remove(file)
		}
		if !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
