package volumes

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// hostPath checks that what is at path is what the manifest expects, and makes it
// where the type says so.
func hostPath(path string, kind *corev1.HostPathType) (Volume, error) {
	if slices.Contains(strings.Split(path, "/"), "..") {
		return Volume{}, fmt.Errorf("hostPath %q must not have .. in it", path)
	}
	if err := checkType(path, ptr.Deref(kind, corev1.HostPathUnset)); err != nil {
		return Volume{}, err
	}
	return Volume{Path: path}, nil
}

func checkType(path string, want corev1.HostPathType) error {
	if want == corev1.HostPathUnset {
		return nil // the runtime makes a folder of it if nothing is there
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return create(path, want)
	}
	if err != nil {
		return fmt.Errorf("hostPath: %w", err)
	}
	is := kindOf(info.Mode())
	switch want {
	case corev1.HostPathDirectoryOrCreate, corev1.HostPathDirectory:
		return expect(path, is, "directory")
	case corev1.HostPathFileOrCreate, corev1.HostPathFile:
		return expect(path, is, "file")
	case corev1.HostPathSocket:
		return expect(path, is, "socket")
	case corev1.HostPathCharDev:
		return expect(path, is, "character device")
	case corev1.HostPathBlockDev:
		return expect(path, is, "block device")
	}
	return fmt.Errorf("hostPath type %q is unknown", want)
}

func create(path string, want corev1.HostPathType) error {
	switch want {
	case corev1.HostPathDirectoryOrCreate:
		if err := os.MkdirAll(path, 0o755); err != nil {
			return fmt.Errorf("hostPath of type DirectoryOrCreate: %w", err)
		}
		return nil
	case corev1.HostPathFileOrCreate:
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o644)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("hostPath of type FileOrCreate: %w; the file is created, but not its folder", err)
		}
		if err != nil {
			return fmt.Errorf("hostPath of type FileOrCreate: %w", err)
		}
		return f.Close()
	}
	hint := ""
	if want == corev1.HostPathCharDev || want == corev1.HostPathBlockDev {
		hint = ": is the device there, and its driver loaded?"
	}
	return fmt.Errorf("hostPath %s does not exist on this node, and its type %q does not create it%s", path, want, hint)
}

func expect(path, is, want string) error {
	if is != want {
		return fmt.Errorf("hostPath type check failed: %s is not a %s but a %s", path, want, is)
	}
	return nil
}

func kindOf(mode fs.FileMode) string {
	switch {
	case mode.IsRegular():
		return "file"
	case mode.IsDir():
		return "directory"
	case mode&fs.ModeSocket != 0:
		return "socket"
	case mode&fs.ModeCharDevice != 0:
		return "character device"
	case mode&fs.ModeDevice != 0:
		return "block device"
	case mode&fs.ModeNamedPipe != 0:
		return "named pipe"
	}
	return "file of another kind"
}
