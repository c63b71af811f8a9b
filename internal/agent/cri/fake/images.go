package fake

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Images implements internalapi.ImageManagerService.
type Images struct {
	internalapi.ImageManagerService // calls that no test needs panic

	// PullTime is how long a pull takes.
	PullTime time.Duration

	mu      sync.Mutex
	down    bool
	present map[string]*runtimeapi.Image
	remote  map[string]*runtimeapi.Image
	// user and password that remote images ask for.
	user, password string
	pulls          []string
	busy, peak     int
}

var _ internalapi.ImageManagerService = &Images{}

// NewImages returns a node that has the given images.
func NewImages(present ...string) *Images {
	i := &Images{present: map[string]*runtimeapi.Image{}, remote: map[string]*runtimeapi.Image{}}
	for _, name := range present {
		i.present[name] = &runtimeapi.Image{Id: "sha256:" + name, Size: 1000}
	}
	return i
}

// Publish puts images into the registry, from which they can be pulled.
func (i *Images) Publish(names ...string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, name := range names {
		i.remote[name] = &runtimeapi.Image{Id: "sha256:" + name, Size: 1000}
	}
}

// Add puts an image onto the node.
func (i *Images) Add(name string, image *runtimeapi.Image) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.present[name] = image
}

// RequireLogin makes the registry ask for credentials.
func (i *Images) RequireLogin(user, password string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.user, i.password = user, password
}

// SetDown makes every call fail, or work again.
func (i *Images) SetDown(down bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = down
}

// Pulls are the images asked for so far, and Peak how many were being pulled at once.
func (i *Images) Pulls() (names []string, peak int) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]string(nil), i.pulls...), i.peak
}

func (i *Images) check(ctx context.Context) error {
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	if i.down {
		return status.Error(codes.Unavailable, "connection refused")
	}
	return nil
}

// ImageStatus finds an image by name or ID.
func (i *Images) ImageStatus(ctx context.Context, spec *runtimeapi.ImageSpec, _ bool) (*runtimeapi.ImageStatusResponse, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.check(ctx); err != nil {
		return nil, err
	}
	for name, img := range i.present {
		if name == spec.Image || img.Id == spec.Image {
			return &runtimeapi.ImageStatusResponse{Image: img}, nil
		}
	}
	return &runtimeapi.ImageStatusResponse{}, nil
}

// ListImages lists the images on the node.
func (i *Images) ListImages(ctx context.Context, _ *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.check(ctx); err != nil {
		return nil, err
	}
	return slices.Collect(maps.Values(i.present)), nil
}

// RemoveImage removes an image by name or ID.
func (i *Images) RemoveImage(ctx context.Context, spec *runtimeapi.ImageSpec) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if err := i.check(ctx); err != nil {
		return err
	}
	maps.DeleteFunc(i.present, func(name string, img *runtimeapi.Image) bool { return name == spec.Image || img.Id == spec.Image })
	return nil
}

// PullImage gets a published image.
func (i *Images) PullImage(ctx context.Context, spec *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, _ *runtimeapi.PodSandboxConfig) (string, error) {
	i.mu.Lock()
	i.pulls = append(i.pulls, spec.Image)
	i.busy++
	i.peak = max(i.peak, i.busy)
	i.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-time.After(i.PullTime):
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.busy--
	if err := i.check(ctx); err != nil {
		return "", err
	}
	if i.user != "" && (auth.GetUsername() != i.user || auth.GetPassword() != i.password) {
		return "", errors.New("401 Unauthorized")
	}
	img := i.remote[spec.Image]
	if img == nil {
		return "", status.Errorf(codes.NotFound, "failed to resolve reference %q: not found", spec.Image)
	}
	i.present[spec.Image] = img
	return img.Id, nil
}
