package volumes

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/testing/protocmp"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/yaml"
)

func containerOf(t testing.TB, text string) *corev1.Container {
	t.Helper()
	c := &corev1.Container{}
	if err := yaml.UnmarshalStrict([]byte(text), c); err != nil {
		t.Fatalf("the test's own YAML: %v", err)
	}
	if c.Name == "" {
		c.Name = "c"
	}
	return c
}

func TestMounts(t *testing.T) {
	w := newWorld(t)
	w.o.RecursiveReadOnly = true
	vols := map[string]Volume{"rw": {Path: "/data/rw"}, "ro": {Path: "/data/ro", ReadOnly: true}}
	got, cleanup, err := w.Mounts(podOf(t, "u1", `{}`), containerOf(t, `
volumeMounts:
- {name: rw, mountPath: /a}
- {name: rw, mountPath: b, readOnly: true, recursiveReadOnly: IfPossible}
- {name: rw, mountPath: /c, mountPropagation: HostToContainer}
- {name: rw, mountPath: /d, mountPropagation: Bidirectional}
- {name: rw, mountPath: /e, mountPropagation: None, readOnly: true, recursiveReadOnly: Enabled}
- {name: ro, mountPath: /f}`), vols, nil)
	if err != nil {
		t.Fatal(err)
	}
	cleanup()
	want := []*runtimeapi.Mount{
		{HostPath: "/data/rw", ContainerPath: "/a"},
		{HostPath: "/data/rw", ContainerPath: "/b", Readonly: true, RecursiveReadOnly: true},
		{HostPath: "/data/rw", ContainerPath: "/c", Propagation: runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER},
		{HostPath: "/data/rw", ContainerPath: "/d", Propagation: runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL},
		{HostPath: "/data/rw", ContainerPath: "/e", Readonly: true, RecursiveReadOnly: true},
		{HostPath: "/data/ro", ContainerPath: "/f", Readonly: true},
	}
	if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
		t.Error(d)
	}
}

func TestMountsRefusals(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	write(t, "x", dir, "file")
	vols := map[string]Volume{"v": {Path: dir}, "absent": {Path: dir + "/absent"}}
	for text, want := range map[string]string{
		`{volumeMounts: [{name: other, mountPath: /x}]}`:                                                                          `container "c" mounts volume "other", which the pod does not have`,
		`{volumeMounts: [{name: v, mountPath: /x, mountPropagation: Sideways}]}`:                                                  `unknown`,
		`{volumeMounts: [{name: v, mountPath: /x, recursiveReadOnly: IfPossible}]}`:                                               `needs readOnly`,
		`{volumeMounts: [{name: v, mountPath: /x, readOnly: true, recursiveReadOnly: Enabled}]}`:                                  `not supported by the container runtime`,
		`{volumeMounts: [{name: v, mountPath: /x, readOnly: true, recursiveReadOnly: Maybe}]}`:                                    `unknown`,
		`{volumeMounts: [{name: v, mountPath: /x, readOnly: true, recursiveReadOnly: Enabled, mountPropagation: Bidirectional}]}`: `does not go together`,
		`{volumeMounts: [{name: v, mountPath: /x, subPath: ../x}]}`:                                                               `must not have ..`,
		`{volumeMounts: [{name: v, mountPath: /x, subPath: /etc}]}`:                                                               `must not start with /`,
		`{volumeMounts: [{name: v, mountPath: /x, subPath: a/../../b}]}`:                                                          `must not have ..`,
		`{volumeMounts: [{name: v, mountPath: /x, subPath: file/below}]}`:                                                         `not a folder`,
		`{volumeMounts: [{name: absent, mountPath: /x, subPath: a}]}`:                                                             `the volume cannot be opened`,
		`{volumeMounts: [{name: v, mountPath: /x, subPathExpr: "a/$(NOBODY)"}]}`:                                                  `no environment variable NOBODY`,
		`{volumeMounts: [{name: v, mountPath: /x, subPathExpr: "$(EMPTY)"}]}`:                                                     `no environment variable EMPTY`,
		`{volumeMounts: [{name: v, mountPath: /x, subPathExpr: "$(UP)/x"}]}`:                                                      `must not have ..`,
	} {
		_, _, err := w.Mounts(podOf(t, "u1", `{}`), containerOf(t, text), vols, func(s string) string {
			return strings.NewReplacer("$(EMPTY)", "", "$(UP)", "..").Replace(s)
		})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n error %v; want one with %q", text, err, want)
		}
		if err != nil && strings.Contains(err.Error(), dir) && !strings.Contains(text, "absent") {
			t.Errorf("the message shows the host's files: %v", err)
		}
	}
}

// bound mounts one sub path and returns where.
func (w *world) bound(volume Volume, uid, subPath string) (string, error) {
	w.t.Helper()
	c := &corev1.Container{Name: "c", VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/x", SubPath: subPath}}}
	mounts, _, err := w.Mounts(podOf(w.t, uid, `{}`), c, map[string]Volume{"v": volume}, nil)
	if err != nil {
		return "", err
	}
	return mounts[0].HostPath, nil
}

func TestSubPath(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	w := newWorld(t)
	dir := t.TempDir()
	if err := unix.Chmod(dir, 0o2775); err != nil {
		t.Fatal(err)
	}
	write(t, "1", dir, "file")
	write(t, "2", dir, "sub/file")
	for name, target := range map[string]string{"inside": "sub/file", "around": "sub/../file"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for sub, want := range map[string]string{"file": "1", "sub/file": "2", "inside": "2", "around": "1", "sub//./file": "2"} {
		got, err := w.bound(Volume{Path: dir}, "u1", sub)
		if err != nil {
			t.Errorf("%s: %v", sub, err)
		} else if read(t, got) != want {
			t.Errorf("%s: got %q; want %q", sub, read(t, got), want)
		}
	}
	// The same place again, also for a folder, and for one that is made on the way.
	for _, sub := range []string{"sub", "sub", "new/er", "new/er"} {
		got, err := w.bound(Volume{Path: dir}, "u1", sub)
		if err != nil {
			t.Fatalf("%s: %v", sub, err)
		}
		if want := filepath.Join(w.root, "u1/volume-subpaths/v/c/0"); got != want {
			t.Errorf("bound at %s; want the kubelet's layout, %s", got, want)
		}
		if n := len(mountsUnder(t, w.root)); n != 1 {
			t.Errorf("%s: %d mounts; want 1", sub, n)
		}
		if a, b := stat(t, got), stat(t, filepath.Join(dir, sub)); a.Ino != b.Ino {
			t.Errorf("%s: something else is bound", sub)
		}
	}
	for _, made := range []string{"new", "new/er"} {
		if m := mode(t, filepath.Join(dir, made)); m != 0o2775 {
			t.Errorf("%s: mode %o; want the volume's, 2775", made, m)
		}
	}
	w.teardown("u1")
	if read(t, dir, "sub/file") != "2" || !isFolder(dir+"/new/er") {
		t.Error("Teardown deleted through a sub path")
	}
}

func TestSubPathOfContents(t *testing.T) {
	w := newWorld(t)
	w.objects.configMaps["settings"] = map[string]string{"fluent.conf": "1"}
	pod := podOf(t, "u1", `{volumes: [{name: v, configMap: {name: settings}}]}`)
	got, err := w.bound(w.setup(pod)["v"], "u1", "fluent.conf")
	if err != nil || read(t, got) != "1" {
		t.Fatalf("%q, %v", got, err)
	}
	// A restarted container sees the new contents; the running one kept the old.
	w.objects.configMaps["settings"]["fluent.conf"] = "2"
	got, err = w.bound(w.setup(pod)["v"], "u1", "fluent.conf")
	if err != nil || read(t, got) != "2" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestSubPathExpr(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	c := containerOf(t, `{volumeMounts: [{name: v, mountPath: /x, subPathExpr: "logs/$(POD)/$$(POD)"}]}`)
	_, _, err := w.Mounts(podOf(t, "u1", `{}`), c, map[string]Volume{"v": {Path: dir}}, func(s string) string {
		s = strings.ReplaceAll(s, "$$", "\x00")
		return strings.ReplaceAll(strings.ReplaceAll(s, "$(POD)", "web-0"), "\x00", "$")
	})
	if err != nil || !isFolder(filepath.Join(dir, "logs/web-0/$(POD)")) {
		t.Errorf("%v", err)
	}
}

func TestSubPathsDoNotEscape(t *testing.T) {
	w := newWorld(t)
	dir, outside := t.TempDir(), t.TempDir()
	write(t, "secret", outside, "file")
	for name, target := range map[string]string{
		"absolute": outside, "file": outside + "/file", "relative": "../" + filepath.Base(outside), "dangling": outside + "/new",
		"inner": "sub/../../" + filepath.Base(outside), "proc": "/proc/self/root", "loop": "loop", "nowhere": "absent",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{
		"absolute", "absolute/file", "file", "relative", "relative/file", "dangling", "dangling/deeper", "inner", "proc", "proc/etc", "loop", "loop/x", "nowhere", "nowhere/x",
	} {
		if got, err := w.bound(Volume{Path: dir}, "u1", sub); err == nil {
			t.Errorf("%s was bound at %s", sub, got)
		} else if strings.Contains(err.Error(), outside) {
			t.Errorf("%s: the message shows where it led: %v", sub, err)
		}
	}
	if exists(outside+"/new") || exists(outside+"/deeper") {
		t.Error("something was made outside")
	}
	if len(mountsUnder(t, w.root)) != 0 {
		t.Error("something was mounted")
	}
}

// A container swaps a folder for a symlink as fast as it can; not once may the
// outside be bound.
func TestSubPathsWinRaces(t *testing.T) {
	w := newWorld(t)
	dir, outside := t.TempDir(), t.TempDir()
	write(t, "inside", dir, "a/file")
	write(t, "outside", outside, "file")
	if err := os.Symlink(outside, filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var swapping sync.WaitGroup
	swapping.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, dir+"/a", unix.AT_FDCWD, dir+"/b", unix.RENAME_EXCHANGE)
			}
		}
	})
	defer func() { close(stop); swapping.Wait() }()
	bound := 0
	for range 3000 {
		got, err := w.bound(Volume{Path: dir}, "u1", "a/file")
		if err != nil {
			continue
		}
		bound++
		if text := read(t, got); text != "inside" {
			t.Fatalf("the container got %q", text)
		}
	}
	if bound == 0 || bound == 3000 {
		t.Errorf("%d of 3000 were bound; the race was not one", bound)
	}
}

func TestSubPathsOfTheWholeHostFollowItsLinks(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	write(t, "1", dir, "real/file")
	if err := os.Symlink(dir+"/real", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	got, err := w.bound(Volume{Path: "/"}, "u1", strings.TrimPrefix(dir, "/")+"/link/file")
	if err != nil || read(t, got) != "1" {
		t.Errorf("%q, %v", got, err)
	}
}

func FuzzRelative(f *testing.F) {
	for _, s := range []string{"a", "a/b", "", ".", "..", "../a", "a/../b", "/a", "a//b", "./a", "..data", "a/..", strings.Repeat("x", 300), "a\x00b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		clean, err := relative(path)
		if err != nil {
			return
		}
		joined := filepath.Join("/root/pods/u1", clean)
		if joined != "/root/pods/u1" && !strings.HasPrefix(joined, "/root/pods/u1/") {
			t.Errorf("%q leads to %s", path, joined)
		}
		if again, err := relative(clean); err != nil || again != clean {
			t.Errorf("%q is not clean: %q, %v", clean, again, err)
		}
	})
}

func FuzzSegment(f *testing.F) {
	for _, s := range []string{"a", "", ".", "..", "a/b", "...", "0f4c-1", "a\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if segment(name) != nil {
			return
		}
		if joined := filepath.Join("/root", name); filepath.Dir(joined) != "/root" || filepath.Base(joined) != name {
			t.Errorf("%q leads to %s", name, joined)
		}
	})
}

// Whatever the keys and paths of a ConfigMap are, its files stay in the volume.
func FuzzKeys(f *testing.F) {
	for _, s := range [][2]string{{"a", "b"}, {"a", "a/b"}, {"..data", "x"}, {"../x", "y"}, {"a/./b", "a/b"}, {"..", "."}, {"..data_tmp", "..2026"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, one, two string) {
		parent := t.TempDir()
		dir := filepath.Join(parent, "volume")
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		files := payload{one: {data: []byte("1"), mode: 0o644}, two: {data: []byte("2"), mode: 0o644}}
		err := replace(dir, files, func() error { return nil })
		entries, listErr := os.ReadDir(parent)
		if listErr != nil || len(entries) != 1 {
			t.Fatalf("%q and %q left the volume: %v", one, two, entries)
		}
		if err != nil {
			return
		}
		for path, f := range files {
			if got, err := os.ReadFile(filepath.Join(dir, path)); err == nil && len(files) == 2 && filepath.Clean(one) != filepath.Clean(two) && string(got) != string(f.data) {
				t.Errorf("%q holds %q", path, got)
			} else if err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%q: %v", path, err)
			}
		}
	})
}

// A sub path, whatever it is called, is inside of the volume or refused.
func FuzzSubPath(f *testing.F) {
	for _, s := range []string{"a", "link", "link/file", "a/link", "../x", "new/deep", "loop/x", "link/../a", "a/../../x", "/", "a/\xff"} {
		f.Add(s)
	}
	parent := f.TempDir()
	dir, outside := filepath.Join(parent, "volume"), filepath.Join(parent, "outside")
	write(f, "1", dir, "a/file")
	write(f, "2", outside, "file")
	for name, target := range map[string]string{"link": outside, "a/link": "../../outside", "loop": "loop", "up": ".."} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, sub string) {
		clean, err := relative(sub)
		if err != nil {
			return
		}
		base, err := unix.Open(dir, unix.O_PATH, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Close(base) }()
		b := binding{volume: Volume{Path: dir}}
		fd, err := b.open(base, clean)
		if err != nil {
			return
		}
		defer func() { _ = unix.Close(fd) }()
		at, err := os.Readlink(descriptor(fd))
		if err != nil || at != dir && !strings.HasPrefix(at, dir+"/") {
			t.Errorf("%q opened %s, %v", sub, at, err)
		}
	})
}

func TestOpenerStaysInTheVolume(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	write(t, "secret", outside, "file")
	write(t, "A='1'", dir, "env")
	if err := os.Symlink(outside+"/file", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(dir+"/pipe", 0o600); err != nil {
		t.Fatal(err)
	}
	open := Opener(map[string]Volume{"v": {Path: dir}})
	f, err := open("v", "env")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if content, err := io.ReadAll(f); err != nil || string(content) != "A='1'" {
		t.Errorf("%q, %v", content, err)
	}
	for path, want := range map[string]string{"link": "leads out", "../x": "must not have ..", "pipe": "not a file", ".": ""} {
		if _, err := open("v", path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := open("v", "absent"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
	if _, err := open("w", "env"); err == nil {
		t.Error("a volume that is not there was opened")
	}
}
