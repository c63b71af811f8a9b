package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/everynode/everynode/internal/agent/cri/fake"
	"github.com/everynode/everynode/internal/decide/garbage"
)

// cellar is a node with images on a disk of 1000 bytes, of which other bytes are used by something else.
type cellar struct {
	t       *testing.T
	images  *fake.Images
	runtime *fake.Runtime
	events  *record.FakeRecorder
	other   int64
	o       CollectorOptions
}

func newCellar(t *testing.T) *cellar {
	c := &cellar{t: t, images: fake.NewImages(), runtime: fake.New(), events: record.NewFakeRecorder(100)}
	c.o = CollectorOptions{
		Images: c.images, Runtime: c.runtime, Recorder: c.events, Node: &corev1.ObjectReference{Kind: "Node", Name: "n1"}, Dir: t.TempDir(),
		Disk: func(ctx context.Context) (garbage.Disk, error) {
			left := 1000 - c.other
			list, err := c.images.ListImages(ctx, nil)
			for _, image := range list {
				left -= int64(image.Size)
			}
			return garbage.Disk{Capacity: 1000, Available: left}, err
		},
	}
	return c
}

func (c *cellar) put(name string, size uint64) {
	c.images.Add(name, &runtimeapi.Image{Id: "sha256:" + name, Size: size, RepoTags: []string{"docker.io/library/" + name + ":1"}})
}

// start runs a collector; stop ends it.
func (c *cellar) start() (stop func()) {
	c.t.Helper()
	collector, err := NewCollector(c.o)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = collector.Run(ctx)
	}()
	return func() { cancel(); <-done }
}

func (c *cellar) want(names ...string) {
	c.t.Helper()
	list, err := c.images.ListImages(context.Background(), nil)
	if err != nil {
		c.t.Fatal(err)
	}
	var have []string
	for _, image := range list {
		have = append(have, strings.TrimPrefix(image.Id, "sha256:"))
	}
	slices.Sort(have)
	if diff := cmp.Diff(names, have); diff != "" {
		c.t.Errorf("images (-want +got):\n%s", diff)
	}
}

func (c *cellar) said() []string {
	var list []string
	for {
		select {
		case e := <-c.events.Events:
			list = append(list, e)
		default:
			return list
		}
	}
}

func (c *cellar) runs(name string) {
	c.t.Helper()
	ctx := context.Background()
	sandbox, err := c.runtime.RunPodSandbox(ctx, &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{Name: name, Uid: name}}, "")
	if err == nil {
		_, err = c.runtime.CreateContainer(ctx, sandbox, &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: name}, Image: &runtimeapi.ImageSpec{Image: "sha256:" + name},
		}, nil)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// TestFullDisk: what may go goes as soon as it is old enough, down to the low threshold and no further.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCellar(t)
		for _, name := range []string{"a", "b", "c", "used", "wanted", "archive", "sandbox"} {
			c.put(name, 100)
		}
		c.images.Add("pinned", &runtimeapi.Image{Id: "sha256:pinned", Size: 100, Pinned: true})
		c.runs("used")
		c.o.Wanted = func() []string { return []string{"wanted:1"} }
		c.runtime.Info = map[string]string{"config": `{"sandboxImage":"sandbox:1"}`}
		if err := os.WriteFile(filepath.Join(c.o.Dir, "x.tar"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := writeImported(c.o.Dir, map[string]imported{
			"x.tar":    {Images: []string{"docker.io/library/archive:1"}},
			"gone.tar": {Images: []string{"docker.io/library/a:1"}},
		}); err != nil {
			t.Fatal(err)
		}
		c.other = 150 // 950 of 1000 bytes are in use
		defer c.start()()
		after(time.Minute)
		c.want("a", "archive", "b", "c", "pinned", "sandbox", "used", "wanted")
		after(time.Minute + time.Second)
		c.want("archive", "c", "pinned", "sandbox", "used", "wanted")
		after(time.Hour)
		c.want("archive", "c", "pinned", "sandbox", "used", "wanted")
		if said := c.said(); len(said) > 0 {
			t.Errorf("events: %v", said)
		}
	})
}

// TestNothingToFree: the disk is full of other things, and users hear of it.
func TestNothingToFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCellar(t)
		c.put("a", 10)
		c.other = 950
		defer c.start()()
		after(6 * time.Minute)
		c.want()
		said := c.said()
		const want = "Warning FreeDiskSpaceFailed Insufficient free disk space on the node's image filesystem (96% of 1000 B used). " +
			"Failed to free sufficient space by deleting unused images (freed 10 bytes). " +
			"Investigate disk usage, as it could be used by active images, logs, volumes, or other data."
		if len(said) == 0 || said[0] != want {
			t.Errorf("events: %q\nwant %q", said, want)
		}
		after(10 * time.Minute)
		if said := c.said(); !slices.ContainsFunc(said, func(e string) bool { return strings.HasPrefix(e, "Warning ImageGCFailed Insufficient") }) {
			t.Errorf("later events: %q", said)
		}
	})
}

// TestRuntimeAway is no reason for an event before it lasts.
func TestRuntimeAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCellar(t)
		c.images.SetDown(true)
		defer c.start()()
		after(time.Minute)
		if said := c.said(); len(said) > 0 {
			t.Errorf("events after a minute: %q", said)
		}
		after(5 * time.Minute)
		if said := c.said(); len(said) != 1 || !strings.HasPrefix(said[0], "Warning ImageGCFailed list images") {
			t.Errorf("events: %q", said)
		}
		c.images.SetDown(false)
		after(time.Hour)
		if said := c.said(); len(said) > 0 {
			t.Errorf("events after it came back: %q", said)
		}
	})
}

func TestMaxAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCellar(t)
		c.put("a", 1)
		c.put("used", 1)
		c.runs("used")
		c.o.Policy = garbage.Default
		c.o.Policy.MaxAge = time.Hour
		defer c.start()()
		after(59 * time.Minute)
		c.want("a", "used")
		after(10 * time.Minute)
		c.want("used")
	})
}

// TestDeleteUnused takes all there is, but what has just come.
func TestDeleteUnused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCellar(t)
		c.put("a", 1)
		c.put("used", 1)
		c.runs("used")
		collector, err := NewCollector(c.o)
		if err != nil {
			t.Fatal(err)
		}
		deleteUnused := func() {
			if err := collector.DeleteUnused(t.Context()); err != nil {
				t.Error(err)
			}
		}
		deleteUnused()
		c.want("a", "used")
		after(3 * time.Minute)
		c.put("new", 1)
		deleteUnused()
		c.want("new", "used")
	})
}

func TestSize(t *testing.T) {
	for bytes, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536 << 20: "1.5 GiB", 5 << 50: "5120.0 TiB"} {
		if got := size(bytes); got != want {
			t.Errorf("%d bytes: %s, want %s", bytes, got, want)
		}
	}
}

var errDisk = errors.New("disk")

// TestDiskUnknown removes nothing.
func TestDiskUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for name, disk := range map[string]func(context.Context) (garbage.Disk, error){
			"error":       func(context.Context) (garbage.Disk, error) { return garbage.Disk{}, errDisk },
			"no capacity": func(context.Context) (garbage.Disk, error) { return garbage.Disk{}, nil },
		} {
			c := newCellar(t)
			c.put("a", 1)
			c.o.Disk = disk
			stop := c.start()
			after(11 * time.Minute)
			c.want("a")
			if said := fmt.Sprint(c.said()); !strings.Contains(said, "ImageGCFailed") {
				t.Errorf("%s: events %s", name, said)
			}
			stop()
		}
	})
}
