package env

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// OpenFile opens a file in a volume of the pod, without leaving the volume.
type OpenFile func(volume, path string) (io.ReadCloser, error)

// file resolves a fileKeyRef:
// https://kubernetes.io/docs/tasks/inject-data-application/define-environment-variable-via-file/
func (m *maker) file(ref *corev1.FileKeySelector) (value string, found bool, err error) {
	optional, what := ptr.Deref(ref.Optional, false), fmt.Sprintf("file %q of volume %q", ref.Path, ref.VolumeName)
	f, err := m.open(ref.VolumeName, ref.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && optional:
		return "", false, nil
	case errors.Is(err, fs.ErrNotExist):
		return "", false, fmt.Errorf("%s does not exist: an init container has to write it, or the reference be marked optional", what)
	case err != nil:
		return "", false, fmt.Errorf("%s: %w", what, err)
	}
	defer func() { _ = f.Close() }()
	value, found, err = find(io.LimitReader(f, maxFile), ref.Key)
	switch {
	case err != nil:
		return "", false, fmt.Errorf("%s: %w", what, err)
	case !found && !optional:
		return "", false, fmt.Errorf("%s has no key %q: add it, or mark the reference optional", what, ref.Key)
	}
	return value, found, nil
}

// maxFile bounds what is read of a file that a container has written.
const maxFile = 1 << 20

// find looks for a variable in a file of lines NAME='value', which may go on over
// several lines; it is the strict part of a shell's syntax that the kubelet takes.
func find(r io.Reader, key string) (value string, found bool, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxFile)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimLeft(lines.Text(), " \t")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, rest, ok := strings.Cut(line, "=")
		switch {
		case !ok:
			return "", false, fmt.Errorf("line %d has no '='; NAME='value' is needed", number)
		case name == "" || strings.TrimRight(name, " \t") != name:
			return "", false, fmt.Errorf("line %d has no name right before '='; NAME='value' is needed", number)
		case rest == "" || strings.HasPrefix(rest, " ") || strings.HasPrefix(rest, "\t"):
			if name == key {
				return "", true, nil // as in a shell
			}
			continue
		case !strings.HasPrefix(rest, "'"):
			return "", false, fmt.Errorf("line %d: the value must be in single quotes", number)
		}
		began := number
		value, rest, ok = strings.Cut(rest[1:], "'")
		for ; !ok; number++ {
			if !lines.Scan() {
				return "", false, fmt.Errorf("line %d: the single quote is never closed", began)
			}
			var more string
			more, rest, ok = strings.Cut(lines.Text(), "'")
			value += "\n" + more
		}
		if rest = strings.TrimLeft(rest, " \t"); rest != "" && !strings.HasPrefix(rest, "#") {
			return "", false, fmt.Errorf("line %d: there is more behind the closing quote", number)
		}
		if name == key {
			return value, true, nil
		}
	}
	return "", false, lines.Err()
}
