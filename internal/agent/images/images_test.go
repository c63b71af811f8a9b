package images

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/everynode/everynode/internal/agent/cri/fake"
)

type secrets map[string]*corev1.Secret

func (s secrets) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	if secret := s[name]; secret != nil {
		return secret, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("secrets"), name)
}

func newPuller(t *testing.T, o Options) *Puller {
	t.Helper()
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func quiet(_, _, _ string) {}

func TestPullPolicies(t *testing.T) {
	for _, c := range []struct {
		name, image string
		policy      corev1.PullPolicy
		want        string // the reference or the reason
		pulls       int
	}{
		{"present", "here:1", corev1.PullIfNotPresent, "sha256:here:1", 0},
		{"present, but always", "here:1", corev1.PullAlways, "sha256:here:1", 1},
		{"absent", "there:1", corev1.PullIfNotPresent, "sha256:there:1", 1},
		{"absent, never", "there:1", corev1.PullNever, ErrImageNeverPull, 0},
		{"present, never", "here:1", corev1.PullNever, "sha256:here:1", 0},
		{"nowhere", "nowhere:1", corev1.PullIfNotPresent, ErrImagePull, 1},
		{"no tag", "there", corev1.PullIfNotPresent, "sha256:there:latest", 1},
		{"no name", "UPPER:1", corev1.PullIfNotPresent, InvalidImageName, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := fake.NewImages("here:1")
			store.Publish("here:1", "there:1", "there:latest")
			p := newPuller(t, Options{Images: store})
			img, err := p.Ensure(t.Context(), &corev1.Pod{}, &corev1.Container{Image: c.image, ImagePullPolicy: c.policy}, nil, quiet)
			got := img.Ref
			var fail *Error
			if errors.As(err, &fail) {
				got = fail.Reason
			}
			if pulls, _ := store.Pulls(); got != c.want || len(pulls) != c.pulls {
				t.Errorf("got %q after %d pulls, want %q after %d", got, len(pulls), c.want, c.pulls)
			}
		})
	}
}

// TestPullsAreSharedAndBounded: many pods ask for few images at once.
func TestPullsAreSharedAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := fake.NewImages()
		store.PullTime = time.Second
		p := newPuller(t, Options{Images: store, MaxPulls: 2})
		var all sync.WaitGroup
		for i := range 6 {
			store.Publish(fmt.Sprintf("i%d:1", i))
			for range 5 {
				all.Go(func() {
					if _, err := p.Ensure(t.Context(), &corev1.Pod{}, &corev1.Container{Image: fmt.Sprintf("i%d:1", i)}, nil, quiet); err != nil {
						t.Error(err)
					}
				})
			}
		}
		all.Wait()
		if pulls, peak := store.Pulls(); len(pulls) != 6 || peak != 2 {
			t.Errorf("%d pulls, %d at once; want 6, 2", len(pulls), peak)
		}
	})
}

func TestRuntimeAwayIsNotTheImagesFault(t *testing.T) {
	store := fake.NewImages("here:1")
	store.SetDown(true)
	p := newPuller(t, Options{Images: store})
	_, err := p.Ensure(t.Context(), &corev1.Pod{}, &corev1.Container{Image: "here:1"}, nil, func(_, reason, _ string) { t.Errorf("event %s", reason) })
	var fail *Error
	if err == nil || errors.As(err, &fail) {
		t.Errorf("error %v", err)
	}
}

func dockerSecret(kind corev1.SecretType, server, user, password string) *corev1.Secret {
	entry := fmt.Sprintf(`{%q: {"auth": %q}}`, server, base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	key := corev1.DockerConfigKey
	if kind == corev1.SecretTypeDockerConfigJson {
		entry, key = `{"auths": `+entry+`}`, corev1.DockerConfigJsonKey
	}
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s"}, Type: kind, Data: map[string][]byte{key: []byte(entry)}}
}

func TestPullSecrets(t *testing.T) {
	for _, c := range []struct {
		server, image string
		fits          bool
	}{
		{"registry.example.com", "registry.example.com/a:1", true},
		{"https://registry.example.com/v2/", "registry.example.com/a:1", true},
		{"registry.example.com:5000", "registry.example.com:5000/a:1", true},
		{"registry.example.com", "registry.example.com:5000/a:1", false},
		{"*.example.com", "registry.example.com/a:1", true},
		{"*.example.com", "a.registry.example.com/a:1", false},
		{"registry.example.com/team", "registry.example.com/team/a:1", true},
		{"registry.example.com/team", "registry.example.com/teammate/a:1", false},
		{"https://index.docker.io/v1/", "redis:7", true},
		{"docker.io", "library/redis:7", true},
	} {
		for _, kind := range []corev1.SecretType{corev1.SecretTypeDockerConfigJson, corev1.SecretTypeDockercfg} {
			store := fake.NewImages()
			store.Publish(c.image)
			store.RequireLogin("me", "a:b")
			p := newPuller(t, Options{Images: store, Secrets: secrets{"s": dockerSecret(kind, c.server, "me", "a:b")}})
			pod := &corev1.Pod{Spec: corev1.PodSpec{ImagePullSecrets: []corev1.LocalObjectReference{{Name: "s"}}}}
			_, err := p.Ensure(t.Context(), pod, &corev1.Container{Image: c.image}, nil, quiet)
			if (err == nil) != c.fits {
				t.Errorf("%s for %s (%s): %v", c.server, c.image, kind, err)
			}
		}
	}
}

func TestMissingSecretIsAnnounced(t *testing.T) {
	store := fake.NewImages()
	store.Publish("a:1")
	p := newPuller(t, Options{Images: store, Secrets: secrets{}})
	pod := &corev1.Pod{Spec: corev1.PodSpec{ImagePullSecrets: []corev1.LocalObjectReference{{Name: "lost"}}}}
	var reasons []string
	if _, err := p.Ensure(t.Context(), pod, &corev1.Container{Image: "a:1"}, nil, func(_, reason, _ string) { reasons = append(reasons, reason) }); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"FailedToRetrieveImagePullSecret", "Pulling", "Pulled"}, reasons); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

func TestPauseArchive(t *testing.T) {
	archive, id, err := PauseArchive()
	if err != nil {
		t.Fatal(err)
	}
	again, _, _ := PauseArchive()
	if !bytes.Equal(archive, again) {
		t.Error("two archives of one version differ")
	}
	files := map[string]string{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(r)
		files[h.Name] = string(b)
	}
	if !strings.Contains(files["index.json"], PauseImage) || files["oci-layout"] == "" || files["blobs/sha256/"+strings.TrimPrefix(id, "sha256:")] == "" {
		t.Errorf("files of the archive: %v", files)
	}
}

// TestPauseProcess runs it: it ends with 0 on both signals, leaves no zombies, and is small.
func TestPauseProcess(t *testing.T) {
	for arch, machine := range map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64} {
		b, err := pauseBinary(arch)
		if err != nil || len(b) > 1024 {
			t.Errorf("%s: %d bytes, %v", arch, len(b), err)
		}
		f, err := elf.NewFile(bytes.NewReader(b))
		if err != nil || f.Machine != machine {
			t.Errorf("%s: %v, %v", arch, f, err)
		}
	}
	b, err := pauseBinary(runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "pause")
	if err := os.WriteFile(path, b, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		cmd := exec.Command(path)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		awaitWaiting(t, cmd.Process.Pid)
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("after %v: %v", signal, err)
		}
	}
}

// awaitWaiting waits until the process ignores SIGCHLD and sleeps, which it does only
// in its wait for signals.
func awaitWaiting(t *testing.T, pid int) {
	t.Helper()
	var ignored uint64
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		ignored = mask(string(b), "SigIgn")
		if strings.Contains(string(b), "State:\tS") && ignored&(1<<(syscall.SIGCHLD-1)) != 0 {
			return
		}
	}
	t.Fatalf("the pause process does not wait, and ignores the signals %#x", ignored)
}

// mask reads a set of signals from /proc/PID/status.
func mask(status, name string) uint64 {
	var bits uint64
	_, rest, _ := strings.Cut(status, name+":")
	_, _ = fmt.Sscanf(rest, "%x", &bits)
	return bits
}

// fakeCtr is a ctr that notes its arguments and says what it imported.
func fakeCtr(t *testing.T, store *fake.Images) (ctr string, calls func() int) {
	t.Helper()
	dir := t.TempDir()
	ctr = filepath.Join(dir, "ctr")
	script := "#!/bin/sh\necho \"$@\" >> " + dir + "/calls\ncat > /dev/null\ncase \"$*\" in *broken*) echo 'no archive' >&2; exit 1;; esac\n" +
		"echo 'unpacking docker.io/library/a:1 (sha256:12)...done'\n"
	if err := os.WriteFile(ctr, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	_, id, err := PauseArchive()
	if err != nil {
		t.Fatal(err)
	}
	store.Add(PauseImage, &runtimeapi.Image{Id: id})
	store.Add("docker.io/library/a:1", &runtimeapi.Image{Id: "sha256:12"})
	return ctr, func() int {
		b, _ := os.ReadFile(dir + "/calls")
		return strings.Count(string(b), "\n")
	}
}

func TestPreloadImportsOnceAndAgainWhenChanged(t *testing.T) {
	store := fake.NewImages()
	ctr, calls := fakeCtr(t, store)
	dir := t.TempDir()
	archive := filepath.Join(dir, "a.tar")
	write := func(content string, at time.Time) {
		if err := errors.Join(os.WriteFile(archive, []byte(content), 0o644), os.Chtimes(archive, at, at)); err != nil {
			t.Fatal(err)
		}
	}
	preload := func(want int) {
		t.Helper()
		if err := Preload(t.Context(), PreloadOptions{Socket: "/sock", Dir: dir, Ctr: ctr, Images: store}); err != nil {
			t.Fatal(err)
		}
		if got := calls(); got != want {
			t.Errorf("%d imports so far, want %d", got, want)
		}
	}
	write("one", time.Unix(1000, 0))
	preload(1)
	preload(1)
	write("two", time.Unix(2000, 0))
	preload(2)
	if err := os.WriteFile(filepath.Join(dir, ".imported"), []byte("{broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	preload(3)
}

func TestPreloadKeepsGoingPastABrokenArchive(t *testing.T) {
	store := fake.NewImages()
	ctr, calls := fakeCtr(t, store)
	dir := t.TempDir()
	for _, name := range []string{"broken.tar", "good.tar"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	err := Preload(t.Context(), PreloadOptions{Socket: "/sock", Dir: dir, Ctr: ctr, Images: store})
	if err == nil || !strings.Contains(err.Error(), "broken.tar") || !strings.Contains(err.Error(), "no archive") {
		t.Errorf("error %v", err)
	}
	if known, err := readImported(dir); err != nil || calls() != 2 || len(known) != 1 || len(known["good.tar"].Images) != 1 {
		t.Errorf("%d calls, remembered %v", calls(), known)
	}
}

func TestPreloadWithoutCtr(t *testing.T) {
	store := fake.NewImages()
	err := Preload(t.Context(), PreloadOptions{Socket: "/sock", Ctr: "no-such-ctr", Images: store})
	if err == nil || !strings.Contains(err.Error(), "comes with containerd") {
		t.Errorf("error %v", err)
	}
}
