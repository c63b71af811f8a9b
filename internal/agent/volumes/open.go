package volumes

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Opener opens files in a pod's volumes for reading. Whatever containers put there,
// it does not leave the volume, and waits for nobody who would write into a pipe.
func Opener(vols map[string]Volume) func(volume, path string) (io.ReadCloser, error) {
	return func(volume, path string) (io.ReadCloser, error) {
		v, ok := vols[volume]
		if !ok {
			return nil, fmt.Errorf("the pod has no volume %q that could be read", volume)
		}
		clean, err := relative(path)
		if err != nil {
			return nil, err
		}
		base, err := unix.Open(v.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("the volume cannot be opened: %w", err)
		}
		defer func() { _ = unix.Close(base) }()
		fd, err := openBeneath(base, clean, unix.O_RDONLY|unix.O_NONBLOCK, unix.RESOLVE_BENEATH)
		if err != nil {
			return nil, plain(err)
		}
		f := os.NewFile(uintptr(fd), path)
		if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
			_ = f.Close()
			return nil, fmt.Errorf("it is not a file")
		}
		return f, nil
	}
}
