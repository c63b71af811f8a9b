package images

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	internalapi "k8s.io/cri-api/pkg/apis"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"
)

// PreloadOptions of Preload.
type PreloadOptions struct {
	// Socket is the path of containerd's socket.
	Socket string
	// Dir holds *.tar archives (OCI or docker save). It need not exist.
	Dir string
	// Ctr is the containerd client to import with. Default "ctr", from the PATH.
	Ctr string
	// Images tells what the runtime has already.
	Images internalapi.ImageManagerService
}

// Validate fills in defaults and reports the first required option that is missing.
func (o *PreloadOptions) Validate() error {
	if o.Ctr == "" {
		o.Ctr = "ctr"
	}
	if o.Socket == "" || o.Images == nil {
		return errors.New("images: Socket and Images must be set")
	}
	return nil
}

// Preload imports the pause image and then the archives in Dir that are new,
// changed, or whose images the runtime has lost. What it imported is remembered in
// Dir/.imported. An archive that cannot be imported does not keep the others out;
// the error names each.
func Preload(ctx context.Context, o PreloadOptions) error {
	if err := o.Validate(); err != nil {
		return err
	}
	if err := o.preloadPause(ctx); err != nil {
		return err
	}
	archives, err := filepath.Glob(filepath.Join(o.Dir, "*.tar"))
	if err != nil || o.Dir == "" || len(archives) == 0 {
		return err
	}
	known, err := readImported(o.Dir)
	if err != nil {
		klog.FromContext(ctx).Info("It is not known which archives were imported; importing all again", "dir", o.Dir, "err", err)
	}
	next, failed := map[string]imported{}, []error{}
	for _, path := range archives {
		entry, err := o.preloadOne(ctx, path, known[filepath.Base(path)])
		if err != nil {
			failed = append(failed, err)
			continue
		}
		next[filepath.Base(path)] = entry
	}
	return errors.Join(append(failed, writeImported(o.Dir, next))...)
}

func (o *PreloadOptions) preloadPause(ctx context.Context) error {
	archive, id, err := PauseArchive()
	if err != nil {
		return err
	}
	if got, err := o.image(ctx, PauseImage); err == nil && got.GetId() == id {
		return nil
	}
	if _, err := o.importFrom(ctx, "-", archive); err != nil {
		return fmt.Errorf("import the pause image: %w", err)
	}
	return o.await(ctx, PauseImage)
}

// imported is what is remembered of an archive.
type imported struct {
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
	Images   []string  `json:"images"`
}

func (o *PreloadOptions) preloadOne(ctx context.Context, path string, known imported) (imported, error) {
	info, err := os.Stat(path)
	if err != nil {
		return known, err
	}
	if known.Size == info.Size() && known.Modified.Equal(info.ModTime()) && o.haveAll(ctx, known.Images) {
		return known, nil
	}
	start := time.Now()
	names, err := o.importFrom(ctx, path, nil)
	if err != nil {
		return known, fmt.Errorf("import %s: %w", path, err)
	}
	for _, name := range names {
		if err := o.await(ctx, name); err != nil {
			return known, fmt.Errorf("import %s: %w", path, err)
		}
	}
	klog.FromContext(ctx).Info("Imported images", "archive", path, "images", names, "took", time.Since(start).Round(time.Millisecond))
	return imported{Size: info.Size(), Modified: info.ModTime(), Images: names}, nil
}

func (o *PreloadOptions) haveAll(ctx context.Context, names []string) bool {
	for _, name := range names {
		if img, err := o.image(ctx, name); err != nil || img == nil {
			return false
		}
	}
	return true
}

func (o *PreloadOptions) image(ctx context.Context, name string) (*runtimeapi.Image, error) {
	r, err := o.Images.ImageStatus(ctx, &runtimeapi.ImageSpec{Image: name}, false)
	return r.GetImage(), err
}

// await waits until the CRI plugin has noticed an image that ctr imported.
func (o *PreloadOptions) await(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		img, err := o.image(ctx, name)
		if err == nil && img != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the runtime does not list image %s after its import: %w", name, errors.Join(err, ctx.Err()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// importFrom runs ctr and returns the names it printed.
func (o *PreloadOptions) importFrom(ctx context.Context, path string, stdin []byte) ([]string, error) {
	cmd := exec.CommandContext(ctx, o.Ctr, "-a", o.Socket, "-n", "k8s.io", "images", "import", path)
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return nil, fmt.Errorf("%s is not installed: it comes with containerd: %w", o.Ctr, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w: %s", cmd, err, strings.TrimSpace(stderr.String()))
	}
	return importedNames(string(out)), nil
}

// importedNames reads lines such as "unpacking docker.io/library/redis:7 (sha256:…)...done".
func importedNames(out string) []string {
	var names []string
	for _, line := range strings.Split(out, "\n") {
		fields := strings.Fields(line)
		if len(fields) >= 2 && fields[0] == "unpacking" {
			names = append(names, fields[1])
		}
	}
	return names
}

// readImported is what is remembered of archives, nothing if that is unusable.
func readImported(dir string) (map[string]imported, error) {
	b, err := os.ReadFile(filepath.Join(dir, ".imported"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var known map[string]imported
	if err == nil {
		err = json.Unmarshal(b, &known)
	}
	if err != nil {
		return nil, err
	}
	for archive := range known {
		if archive != filepath.Base(archive) || !strings.HasSuffix(archive, ".tar") {
			return nil, fmt.Errorf("%q is no archive's name", archive)
		}
	}
	return known, nil
}

func writeImported(dir string, known map[string]imported) error {
	b, err := json.MarshalIndent(known, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(dir, ".imported")
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, b) {
		return nil
	}
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return fmt.Errorf("remember imported archives: %w", err)
	}
	return os.Rename(path+".new", path)
}

// Preloaded are the names of the images that the archives in a folder have brought.
func Preloaded(dir string) []string {
	if dir == "" {
		return nil
	}
	var names []string
	known, _ := readImported(dir) // Preload reports what is wrong, and mends it
	for archive, entry := range known {
		if _, err := os.Stat(filepath.Join(dir, archive)); err == nil {
			names = append(names, entry.Images...)
		}
	}
	return names
}
