package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func TestFlags(t *testing.T) {
	for args, want := range map[string]string{
		"-o f -busybox":                               "-name and -o are needed",
		"-name docker.io/x:1 -busybox":                "-name and -o are needed",
		"-name docker.io/x:1 -o f":                    "would be empty",
		"-name x:1 -o f -busybox":                     "full name is needed",
		"-name library/x:1 -o f -busybox":             "full name is needed",
		"-name docker.io/x -o f -busybox":             "full name is needed",
		"-name docker.io/x:1 -o f -busybox -link /a":  "two sides",
		"-name docker.io/x:1 -o f -busybox -file =/a": "two sides",
		"-name docker.io/x:1 -o f -busybox extra":     "no flag",
		"-name docker.io/x:1 -o f -busybox -env A=":   "",
		"-name localhost/x:1 -o f -package p":         "",
	} {
		_, err := parse(strings.Fields(args))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: error %v; want %q", args, err, want)
		}
	}
}

func TestDownloads(t *testing.T) {
	got, err := downloads("'http://d/pool/b/bash-static_5.2%2bb_amd64.deb' bash-static_5.2+b_amd64.deb 12 SHA256:0\n" +
		"'http://d/pool/z/zlib1g_1_amd64.deb' zlib1g_1%3a2_amd64.deb 34 SHA256:1\n")
	want := map[string]download{"bash-static": {"bash-static_5.2+b_amd64.deb", 12}, "zlib1g": {"zlib1g_1%3a2_amd64.deb", 34}}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", "E: Unable to locate", "a b c d"} {
		if got, err := downloads(bad); err == nil {
			t.Errorf("%q was read as %v", bad, got)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.deb"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if (download{"a.deb", 8}).complete(dir) || !(download{"a.deb", 4}).complete(dir) || (download{"b.deb", 0}).complete(dir) {
		t.Error("a broken download was taken for a whole one, or the other way round")
	}
}

// dynamic is this machine's ls, which is linked dynamically on every Debian.
func dynamic(t *testing.T) *node {
	t.Helper()
	data, err := os.ReadFile("/bin/ls")
	if err != nil {
		t.Fatal(err)
	}
	return &node{kind: tar.TypeReg, mode: 0o755, data: data}
}

func TestLibrariesAreTaken(t *testing.T) {
	root, available := tree{"bin/ls": dynamic(t)}, tree{}
	needs := root.needs()
	if !slices.Contains(needs, "libc.so.6") || !slices.ContainsFunc(needs, func(s string) bool { return strings.HasPrefix(s, "/lib") }) {
		t.Fatalf("ls needs %v; want the C library and a loader", needs)
	}
	if d := cmp.Diff(needs, resolve(root, available)); d != "" {
		t.Errorf("with nothing available:\n%s", d)
	}
	for _, n := range needs {
		if strings.HasPrefix(n, "/") { // as libc6 has it
			available.symlink(n, "/usr/lib/x86_64-linux-gnu/the-loader")
			available.file("usr/lib/x86_64-linux-gnu/the-loader", 0o755, nil)
			continue
		}
		available.symlink("usr/lib/x86_64-linux-gnu/"+n, n+".1.2")
		available.file("usr/lib/x86_64-linux-gnu/"+n+".1.2", 0o644, nil)
		available.file("usr/lib/private/"+n, 0o644, nil)
	}
	available.file("usr/lib/x86_64-linux-gnu/unneeded.so.1", 0o644, nil)
	if missing := resolve(root, available); len(missing) != 0 {
		t.Errorf("missing %v", missing)
	}
	if root["usr/lib/x86_64-linux-gnu/libc.so.6.1.2"] == nil || root["usr/lib/x86_64-linux-gnu/the-loader"] == nil {
		t.Error("a symlink was taken without its target")
	}
	for name := range root {
		if strings.Contains(name, "unneeded") || strings.Contains(name, "private") {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestMergedUsr(t *testing.T) {
	root := tree{}
	root.file("usr/bin/a", 0o755, nil)
	root.file("bin/b", 0o755, nil)
	root.file("usr/lib64/ld.so", 0o755, nil)
	mergeUsr(root)
	if root["lib64"] == nil || root["lib64"].link != "usr/lib64" || root["bin"] != nil || root["sbin"] != nil {
		t.Errorf("got %v", slices.Sorted(maps.Keys(root)))
	}
}

func TestHardLinksAndOddFiles(t *testing.T) {
	root := tree{}
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeReg, Name: "./usr/bin/a", Mode: 0o4755, Size: 1},
		{Typeflag: tar.TypeLink, Name: "./usr/bin/b", Linkname: "./usr/bin/a"},
		{Typeflag: tar.TypeDir, Name: "./"},
	} {
		if err := root.add(&h, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	if root["usr/bin/b"] != root["usr/bin/a"] || unixMode(root["usr/bin/a"].mode) != 0o4755 || len(root) != 2 {
		t.Errorf("got %v", root)
	}
	for _, h := range []tar.Header{{Typeflag: tar.TypeBlock, Name: "dev/sda"}, {Typeflag: tar.TypeLink, Name: "a", Linkname: "absent"}} {
		if root.add(&h, nil) == nil {
			t.Errorf("%s was accepted", h.Name)
		}
	}
}

func TestCopyIn(t *testing.T) {
	host := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(host, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	root := tree{}
	for _, flag := range []string{host + "=/a", host + "=/b:755", host + "=/s:4755"} {
		if err := copyIn(root, flag); err != nil {
			t.Fatal(err)
		}
	}
	if root["a"].mode != 0o644 || root["b"].mode != 0o755 || string(root["a"].data) != "x" {
		t.Errorf("got %+v and %+v", root["a"], root["b"])
	}
	if unixMode(root["s"].mode) != 0o4755 {
		t.Errorf("mode 4755 became %o", unixMode(root["s"].mode))
	}
	for _, flag := range []string{host + "=/c:abc", host + ".absent=/c"} {
		if copyIn(root, flag) == nil {
			t.Errorf("%s was accepted", flag)
		}
	}
}

func TestArchive(t *testing.T) {
	o := &options{
		names:      repeated{"docker.io/library/x:1", "docker.io/library/x:latest"},
		entrypoint: repeated{"/bin/x"}, cmd: repeated{"-v"}, env: repeated{"A=b"}, user: "7:8",
	}
	root := tree{}
	base(root)
	root.file("/usr/bin/x", 0o755, []byte("program"))
	root.symlink("/bin/x", "/usr/bin/x")
	root.complete()
	var sums [2][32]byte
	for i := range sums {
		o.out = filepath.Join(t.TempDir(), "x.tar")
		if err := writeArchive(o, root, "amd64"); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(o.out)
		if err != nil {
			t.Fatal(err)
		}
		sums[i] = sha256.Sum256(data)
		if entries, _ := os.ReadDir(filepath.Dir(o.out)); len(entries) != 1 {
			t.Errorf("%d files are left beside the archive", len(entries)-1)
		}
	}
	if sums[0] != sums[1] {
		t.Error("equal input gave different bytes")
	}

	index, err := layout.ImageIndexFromPath(extract(t, o.out))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Error(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range manifest.Manifests {
		names = append(names, m.Annotations["io.containerd.image.name"]+" "+m.Annotations["org.opencontainers.image.ref.name"])
	}
	if d := cmp.Diff([]string{"docker.io/library/x:1 1", "docker.io/library/x:latest latest"}, names); d != "" {
		t.Error(d)
	}
	img, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(config.Config)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"Cmd":["-v"],"Entrypoint":["/bin/x"],"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin","A=b"],"User":"7:8"}`
	if d := cmp.Diff(want, string(got)); d != "" || config.OS != "linux" || config.Architecture != "amd64" {
		t.Errorf("%s/%s %s", config.OS, config.Architecture, d)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	found := map[string]int64{}
	for files := tar.NewReader(r); ; {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		found[h.Name] = h.Mode
	}
	for name, mode := range map[string]int64{"tmp/": 0o1777, "usr/bin/": 0o755, "usr/bin/x": 0o755, "bin/x": 0o777, "etc/passwd": 0o644} {
		if found[name] != mode {
			t.Errorf("%s has mode %o; want %o", name, found[name], mode)
		}
	}
}

func extract(t *testing.T, archive string) string {
	t.Helper()
	data, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.Typeflag == tar.TypeDir {
			err = os.MkdirAll(name, 0o755)
		} else if data, readErr := io.ReadAll(r); readErr == nil {
			err = os.WriteFile(name, data, 0o600)
		} else {
			err = readErr
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestPlatform(t *testing.T) {
	for debian, want := range map[string]string{"amd64": "amd64", "arm64": "arm64", "armhf": "arm v7", "i386": "386", "ppc64el": "ppc64le"} {
		_, arch, variant := platform(debian)
		if got := strings.TrimSpace(arch + " " + variant); got != want {
			t.Errorf("%s is %s; want %s", debian, got, want)
		}
	}
}
