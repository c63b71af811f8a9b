//go:build conformance

package conformance

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// recipe is how tools/debimage makes an image of the suite.
type recipe struct {
	image string // repository of the image; the suite says with which tags
	args  []string
}

// recipes are for the images that the specs of pods use. The suite names some more, for specs of
// cloud providers, storage drivers and the like.
func recipes(put *files, agnhostSource string) []recipe {
	user := []string{
		"-file", put.file("passwd", "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/:/bin/false\nuser-defined-in-image:x:1000:1000::/home:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n") + "=/etc/passwd",
		"-file", put.file("group", "root:x:0:\nwww-data:x:33:\nuser-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\nnogroup:x:65534:\n") + "=/etc/group",
	}
	with := func(args ...string) []string { return append(append([]string{"-busybox"}, user...), args...) }
	return []recipe{
		{"registry.k8s.io/e2e-test-images/busybox", with("-cmd", "sh")},
		{"registry.k8s.io/e2e-test-images/nonroot", with("-cmd", "sh", "-user", "1234")},
		{"registry.k8s.io/e2e-test-images/agnhost", with(
			// busybox's sh would take its own nc
			"-package", "curl", "-package", "netcat-openbsd", "-link", "/bin/nc=nc.openbsd", "-link", "/bin/sh=bash",
			"-file", agnhost+"=/agnhost:755", "-link", "/agnhost-2=agnhost", "-file", put.file("keep", "")+"=/uploads/.keep",
			"-file", agnhostSource+"/porter/localhost.crt=/localhost.crt", "-file", agnhostSource+"/porter/localhost.key=/localhost.key",
			"-entrypoint", "/agnhost", "-cmd", "pause")},
		{"registry.k8s.io/e2e-test-images/nonewprivs", with("-file", nonewprivs+"=/usr/local/bin/nnp:4755", "-cmd", "nnp")},
		{"registry.k8s.io/e2e-test-images/kitten", []string{
			"-file", put.file("data.json", `{"image":"kitten.jpg"}`) + "=/data.json", "-file", put.file("os-release", "NAME=\"Alpine Linux\"\n") + "=/etc/os-release", "-cmd", "test-webserver"}},
		{"registry.k8s.io/e2e-test-images/nginx", with(
			"-package", "nginx", "-file", put.file("nginx.conf", "worker_processes 1;\nevents {}\nhttp { server { listen 80; root /usr/share/nginx/html; } }\n")+"=/etc/nginx/nginx.conf",
			"-file", put.file("index.html", "welcome\n")+"=/usr/share/nginx/html/index.html",
			"-cmd", "/usr/sbin/nginx", "-cmd", "-g", "-cmd", "daemon off;")},
		{"registry.k8s.io/pause", []string{
			"-file", "internal/agent/images/pause/pause_" + runtime.GOARCH + "=/pause:755", "-entrypoint", "/pause", "-user", "65535:65535"}},
	}
}

// makeImages makes an archive for each of the suite's images, unless an earlier run has, and returns their paths.
func makeImages(t *testing.T) ([]string, error) {
	ctx := t.Context()
	listed, err := output(ctx, root, program(t, suite), "--list-images")
	if err != nil {
		return nil, err
	}
	kubernetes, err := output(ctx, filepath.Join(root, "test/upstream/suite"), "go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes")
	if err != nil {
		return nil, err
	}
	program, err := os.Stat(program(t, agnhost))
	if err != nil {
		return nil, err
	}
	dir := absolute(t, imageDir)
	made := &files{dir: filepath.Join(dir, "files"), digest: sha256.New()}
	if err := os.MkdirAll(made.dir, 0o755); err != nil {
		return nil, err
	}
	all := recipes(made, filepath.Join(strings.TrimSpace(kubernetes), "test/images/agnhost"))
	if made.err != nil {
		return nil, made.err
	}
	fmt.Fprint(made.digest, all, program.ModTime())
	key := hex.EncodeToString(made.digest.Sum(nil))[:8]
	var archives []string
	for _, r := range all {
		tags := regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(r.image)+`:(\S+)$`).FindAllStringSubmatch(listed, -1)
		if len(tags) == 0 {
			return nil, fmt.Errorf("the suite does not know the image %s; it says:\n%s", r.image, listed)
		}
		for _, tag := range tags {
			archive := filepath.Join(dir, fmt.Sprintf("%s-%s-%s.tar", filepath.Base(r.image), tag[1], key))
			archives = append(archives, archive)
			if _, err := os.Stat(archive); err == nil {
				continue
			}
			fmt.Println("making the image", tag[0])
			// The variable makes each tag an image of its own: a runtime that knows one by two names may report either.
			args := append([]string{"run", "./tools/debimage", "-name", tag[0], "-cache", packageDir, "-o", archive, "-env", "E2E_IMAGE_TAG=" + tag[1]}, r.args...)
			if _, err := output(ctx, root, "go", args...); err != nil {
				return nil, err
			}
		}
	}
	return archives, removeOthers(dir, archives)
}

// removeOthers removes archives of earlier recipes.
func removeOthers(dir string, archives []string) error {
	there, err := filepath.Glob(filepath.Join(dir, "*.tar"))
	for _, archive := range there {
		if !slices.Contains(archives, archive) {
			err = errors.Join(err, os.Remove(archive))
		}
	}
	return err
}

// files are the small files of images, on this machine; digest is about all that was written.
type files struct {
	dir    string
	digest hash.Hash
	err    error
}

func (f *files) file(name, content string) string {
	path := filepath.Join(f.dir, name)
	f.err = errors.Join(f.err, os.WriteFile(path, []byte(content), 0o644))
	fmt.Fprint(f.digest, name, content)
	return path
}

// output runs a program in a folder and returns what it printed.
func output(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, exit.Stderr)
	}
	return string(out), err
}
