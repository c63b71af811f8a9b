package images

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/distribution/reference"
	"golang.org/x/sync/singleflight"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/everynode/everynode/internal/agent/cri"
)

// Reasons of an Error, as the kubelet's users know them.
const (
	ErrImagePull      = "ErrImagePull"
	ErrImageNeverPull = "ErrImageNeverPull"
	ErrImageInspect   = "ImageInspectError"
	InvalidImageName  = "InvalidImageName"
)

// Error is why a container has no image. Reason becomes the container's waiting reason.
type Error struct{ Reason, Message string }

// Error is the reason and the message.
func (e *Error) Error() string { return e.Reason + ": " + e.Message }

// Image is one that a container may be created from.
type Image struct {
	// Ref is the runtime's ID of the image.
	Ref string
	// UID or Username is the image's own user.
	UID      *int64
	Username string
}

// Secrets reads the pods' pull secrets.
type Secrets interface {
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// Options of a Puller.
type Options struct {
	Images internalapi.ImageManagerService
	// Secrets may be nil: then no pull has credentials.
	Secrets Secrets
	// Provenance remembers who may use which image. Without one every pod may use what the machine has.
	Provenance *Provenance
	// MaxPulls bounds the pulls at once. Default 4.
	MaxPulls int
}

// Validate fills in defaults and reports the first required option that is missing.
func (o *Options) Validate() error {
	if o.Images == nil {
		return errors.New("images: Images is not set")
	}
	if o.MaxPulls <= 0 {
		o.MaxPulls = 4
	}
	return nil
}

// Puller gets images. It is safe for concurrent use.
type Puller struct {
	o      Options
	slots  chan struct{}
	single singleflight.Group
}

// New checks the options and returns a Puller.
func New(o Options) (*Puller, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &Puller{o: o, slots: make(chan struct{}, o.MaxPulls)}, nil
}

// Event tells of what Ensure does: an event's type, reason and message.
type Event func(eventType, reason, message string)

// Ensure makes the container's image present, as its pull policy asks, and
// returns it. Failures are of type *Error, unless ctx ended or the runtime did not
// answer, which says nothing about the image.
func (p *Puller) Ensure(ctx context.Context, pod *corev1.Pod, c *corev1.Container, sandbox *runtimeapi.PodSandboxConfig, event Event) (Image, error) {
	name, err := Normalize(c.Image)
	if err != nil {
		msg := fmt.Sprintf("Failed to apply default image tag %q: %v", c.Image, err)
		event(corev1.EventTypeWarning, "InspectFailed", msg)
		return Image{}, &Error{InvalidImageName, msg}
	}
	var missing string
	credentials := sync.OnceValue(func() (creds []credential) {
		creds, missing = p.credentials(ctx, pod, name)
		return creds
	})
	if c.ImagePullPolicy != corev1.PullAlways {
		img, err := p.inspect(ctx, name)
		switch {
		case cri.IsUnavailable(err):
			return Image{}, err
		case err != nil:
			msg := fmt.Sprintf("Failed to inspect image %q: %s", c.Image, message(err))
			event(corev1.EventTypeWarning, "InspectFailed", msg)
			return Image{}, &Error{ErrImageInspect, msg}
		case img.Ref != "" && p.o.Provenance.Allows(name, img.Ref, credentials):
			event(corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", c.Image))
			return img, nil
		case c.ImagePullPolicy == corev1.PullNever && img.Ref != "":
			msg := fmt.Sprintf("Container image %q is present, but was pulled with credentials that the pod does not have, and its pull policy is Never: "+
				"name a pull secret that gives access to it in imagePullSecrets", c.Image)
			event(corev1.EventTypeWarning, ErrImageNeverPull, msg)
			return Image{}, &Error{ErrImageNeverPull, msg}
		case c.ImagePullPolicy == corev1.PullNever:
			msg := fmt.Sprintf("Container image %q is not present with pull policy of Never", c.Image)
			event(corev1.EventTypeWarning, ErrImageNeverPull, msg)
			return Image{}, &Error{ErrImageNeverPull, msg}
		}
	}
	creds := credentials()
	if missing != "" {
		event(corev1.EventTypeWarning, "FailedToRetrieveImagePullSecret",
			fmt.Sprintf("Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", missing))
	}
	return p.pull(ctx, name, c.Image, creds, sandbox, event)
}

// Normalize adds the tag "latest" to a name that has neither tag nor digest, as
// the kubelet does; the runtime adds the registry and library/.
func Normalize(image string) (string, error) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return "", fmt.Errorf("couldn't parse image name %q: %w", image, err)
	}
	if reference.IsNameOnly(named) {
		return image + ":latest", nil
	}
	return image, nil
}

// fullName is a name as runtimes list it, with registry and tag.
func fullName(image string) (string, error) {
	named, err := reference.ParseDockerRef(image)
	if err != nil {
		return "", err
	}
	return named.String(), nil
}

// Inspect looks an image up; it is zero if the runtime does not have it.
func (p *Puller) inspect(ctx context.Context, name string) (Image, error) {
	r, err := p.o.Images.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: name}, false)
	if err != nil || r.GetImage() == nil {
		return Image{}, err
	}
	img := Image{Ref: r.Image.Id, Username: r.Image.Username}
	if r.Image.Uid != nil {
		img.UID = &r.Image.Uid.Value
	}
	return img, nil
}

func (p *Puller) pull(ctx context.Context, name, shown string, creds []credential, sandbox *runtimeapi.PodSandboxConfig, event Event) (Image, error) {
	event(corev1.EventTypeNormal, "Pulling", fmt.Sprintf("Pulling image %q", shown))
	began := time.Now()
	// The pull outlives a caller that gives up: others may wait for it too.
	done := p.single.DoChan(name+"\x00"+fingerprint(creds), func() (any, error) {
		return p.pullNow(context.WithoutCancel(ctx), name, creds, sandbox)
	})
	select {
	case <-ctx.Done():
		return Image{}, ctx.Err()
	case r := <-done:
		if cri.IsUnavailable(r.Err) {
			return Image{}, r.Err
		}
		if r.Err != nil {
			event(corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %s", shown, message(r.Err)))
			event(corev1.EventTypeWarning, "Failed", "Error: "+ErrImagePull)
			return Image{}, &Error{ErrImagePull, message(r.Err)}
		}
		res := r.Val.(pulled)
		event(corev1.EventTypeNormal, "Pulled", fmt.Sprintf("Successfully pulled image %q in %v (%v including waiting). Image size: %v bytes.",
			shown, res.took.Truncate(time.Millisecond), time.Since(began).Truncate(time.Millisecond), res.size))
		return res.image, nil
	}
}

type pulled struct {
	image Image
	size  uint64
	took  time.Duration
}

// pullNow waits for a slot and tries each credential until one works.
func (p *Puller) pullNow(ctx context.Context, name string, creds []credential, sandbox *runtimeapi.PodSandboxConfig) (pulled, error) {
	p.slots <- struct{}{}
	defer func() { <-p.slots }()
	try := []*credential{nil}
	if len(creds) > 0 {
		try = try[:0]
		for i := range creds {
			try = append(try, &creds[i])
		}
	}
	if err := p.o.Provenance.Begin(name); err != nil {
		return pulled{}, err
	}
	began := time.Now()
	var errs []error
	for _, c := range try {
		var auth *runtimeapi.AuthConfig
		if c != nil {
			auth = c.auth
		}
		ref, err := p.o.Images.PullImage(ctx, &runtimeapi.ImageSpec{Image: name}, auth, sandbox)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		got, err := p.describe(ctx, name, ref, time.Since(began))
		if err != nil {
			return pulled{}, err // it stays known as being pulled: it may be there
		}
		p.o.Provenance.Pulled(name, got.image.Ref, c)
		return got, nil
	}
	p.o.Provenance.Failed(name)
	if len(errs) == 1 {
		return pulled{}, errs[0]
	}
	return pulled{}, errors.Join(errs...)
}

func (p *Puller) describe(ctx context.Context, name, ref string, took time.Duration) (pulled, error) {
	r, err := p.o.Images.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: ref}, false)
	if err != nil {
		return pulled{}, err
	}
	if r.GetImage() == nil {
		return pulled{}, fmt.Errorf("image %s was pulled as %s and is gone again: is the disk full?", name, ref)
	}
	res := pulled{image: Image{Ref: r.Image.Id, Username: r.Image.Username}, size: r.Image.Size, took: took}
	if r.Image.Uid != nil {
		res.image.UID = &r.Image.Uid.Value
	}
	return res, nil
}

// message is an error's text without gRPC's wrapping.
func message(err error) string {
	if s, ok := status.FromError(err); ok {
		return s.Message()
	}
	return err.Error()
}
