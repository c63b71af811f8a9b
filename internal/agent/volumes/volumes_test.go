package volumes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/everynode/everynode/internal/agent/objects"
)

func mountsUnder(t testing.TB, dir string) []string {
	t.Helper()
	mounts, err := mountinfo.GetMounts(mountinfo.PrefixFilter(dir))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range mounts {
		out = append(out, m.Mountpoint)
	}
	return out
}

func TestEmptyDirOnDisk(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	w := newWorld(t)
	pod := podOf(t, "u1", `{volumes: [{name: data, emptyDir: {}}]}`)
	path := w.setup(pod)["data"].Path
	if want := filepath.Join(w.root, "u1/volumes/kubernetes.io~empty-dir/data"); path != want {
		t.Errorf("path %s; want the kubelet's layout, %s", path, want)
	}
	if m := mode(t, path); m != 0o777 {
		t.Errorf("mode %o; want 0777 whatever the umask", m)
	}
	// What containers make of it stays through an agent's restart.
	write(t, "kept", path, "file")
	if err := os.Chmod(path, 0o700); err != nil {
		t.Fatal(err)
	}
	w.Manager = New(w.o)
	if again := w.setup(pod)["data"].Path; again != path || read(t, path, "file") != "kept" || mode(t, path) != 0o700 {
		t.Error("a second Setup changed a volume in use")
	}
	w.teardown("u1")
	w.teardown("u1")
}

func TestEmptyDirIsFinishedAfterAKill(t *testing.T) {
	w := newWorld(t)
	half := filepath.Join(w.root, "u1/volumes/kubernetes.io~empty-dir/data")
	if err := os.MkdirAll(half, 0o750); err != nil {
		t.Fatal(err)
	}
	path := w.setup(podOf(t, "u1", `{securityContext: {fsGroup: 4321}, volumes: [{name: data, emptyDir: {}}]}`))["data"].Path
	if s := stat(t, path); s.Mode&0o7777 != 0o2777 || s.Gid != 4321 {
		t.Errorf("mode %o, group %d; want 2777 and 4321", s.Mode&0o7777, s.Gid)
	}
}

func TestEmptyDirInMemory(t *testing.T) {
	w := newWorld(t)
	pod := podOf(t, "u1", `{securityContext: {fsGroup: 4321}, volumes: [{name: cache, emptyDir: {medium: Memory, sizeLimit: 1Mi}}]}`)
	path := w.setup(pod)["cache"].Path
	if !isTmpfs(t, path) {
		t.Fatal("no tmpfs is mounted")
	}
	if s := stat(t, path); s.Mode&0o2777 != 0o2777 || s.Gid != 4321 {
		t.Errorf("mode %o, group %d; want 2777 at least and 4321", s.Mode&0o7777, s.Gid)
	}
	write(t, "kept", path, "file")
	w.Manager = New(w.o)
	w.setup(pod)
	if read(t, path, "file") != "kept" || len(mountsUnder(t, path)) != 1 {
		t.Error("a second Setup mounted again")
	}
	if err := os.WriteFile(filepath.Join(path, "big"), make([]byte, 2<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("2 MiB into a volume of 1 MiB: %v; want no space left", err)
	}
	// After a reboot the folder and its mark are there, and the tmpfs is not.
	if err := unmount(path); err != nil {
		t.Fatal(err)
	}
	w.setup(pod)
	if s := stat(t, path); !isTmpfs(t, path) || s.Gid != 4321 {
		t.Error("after a reboot the volume is not what it was")
	}
	w.teardown("u1")
}

func TestMemorySize(t *testing.T) {
	limited := func(limits ...string) *corev1.Pod {
		pod := &corev1.Pod{}
		for _, l := range limits {
			c := corev1.Container{}
			if l != "" {
				c.Resources.Limits = corev1.ResourceList{"memory": resource.MustParse(l)}
			}
			pod.Spec.Containers = append(pod.Spec.Containers, c)
		}
		return pod
	}
	for _, c := range []struct {
		name, allocatable, sizeLimit string
		pod                          *corev1.Pod
		want                         int64
	}{
		{"nothing is known", "", "", limited(""), 0},
		{"the node's", "1Gi", "", limited("", "1Mi"), 1 << 30},
		{"the pod's", "1Gi", "", limited("1Mi", "2Mi"), 3 << 20},
		{"the volume's", "1Gi", "2Mi", limited("1Mi", "2Mi"), 2 << 20},
		{"the volume's is too much", "1Gi", "8Mi", limited("1Mi", "2Mi"), 3 << 20},
		{"only the volume's", "", "8Mi", limited(""), 8 << 20},
	} {
		p, e := &podVolumes{pod: c.pod}, &corev1.EmptyDirVolumeSource{}
		if c.allocatable != "" {
			p.facts.Allocatable = corev1.ResourceList{"memory": resource.MustParse(c.allocatable)}
		}
		if c.sizeLimit != "" {
			q := resource.MustParse(c.sizeLimit)
			e.SizeLimit = &q
		}
		if got := memorySize(p, e); got != c.want {
			t.Errorf("%s: %d; want %d", c.name, got, c.want)
		}
	}
}

func TestVolumesThatNobodyMountsAreNotMade(t *testing.T) {
	w := newWorld(t)
	vols := w.setup(podOf(t, "u1", `
volumes: [{name: used, emptyDir: {}}, {name: unused, configMap: {name: absent}}]
containers: [{name: c, volumeMounts: [{name: used, mountPath: /x}]}]`))
	if len(vols) != 1 || vols["used"].Path == "" {
		t.Errorf("got %v", vols)
	}
}

func TestHostPath(t *testing.T) {
	dir := t.TempDir()
	file := write(t, "x", dir, "file")
	folder := filepath.Join(dir, "folder")
	socket := filepath.Join(dir, "socket")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(folder, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	block := filepath.Join(dir, "block")
	if err := unix.Mknod(block, unix.S_IFBLK|0o600, int(unix.Mkdev(7, 250))); err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct{ kind, path, want string }{
		{"", dir + "/nothing", ""},
		{"Directory", folder, ""},
		{"Directory", dir + "/link", ""},
		{"Directory", file, "is not a directory but a file"},
		{"Directory", dir + "/nothing", "does not exist on this node"},
		{"DirectoryOrCreate", folder, ""},
		{"DirectoryOrCreate", dir + "/made/deep", ""},
		{"DirectoryOrCreate", file, "is not a directory but a file"},
		{"DirectoryOrCreate", file + "/below", "not a directory"},
		{"File", file, ""},
		{"File", folder, "is not a file but a directory"},
		{"File", dir + "/nothing", "does not exist on this node"},
		{"FileOrCreate", dir + "/made/lock", ""},
		{"FileOrCreate", dir + "/nowhere/lock", "not its folder"},
		{"FileOrCreate", folder, "is not a file but a directory"},
		{"Socket", socket, ""},
		{"Socket", file, "is not a socket but a file"},
		{"CharDevice", "/dev/null", ""},
		{"CharDevice", block, "is not a character device but a block device"},
		{"BlockDevice", block, ""},
		{"BlockDevice", "/dev/null", "is not a block device but a character device"},
		{"Pipe", file, "unknown"},
		{"", dir + "/../x", "must not have .."},
	} {
		kind := corev1.HostPathType(c.kind)
		v, err := hostPath(c.path, &kind)
		switch {
		case c.want == "" && (err != nil || v.Path != c.path || v.ReadOnly):
			t.Errorf("%q of type %q: %+v, %v", c.path, c.kind, v, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%q of type %q: error %v; want one with %q", c.path, c.kind, err, c.want)
		}
	}
	if !exists(dir+"/made/lock") || exists(dir+"/nothing") {
		t.Error("FileOrCreate creates, and the unset type does not")
	}
}

// tree reads what a container sees of a volume: path → contents.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "..") {
			continue
		}
		full := filepath.Join(dir, e.Name())
		if info, err := os.Stat(full); err != nil {
			t.Errorf("%s leads nowhere: %v", full, err)
		} else if info.IsDir() {
			for path, data := range tree(t, full) {
				out[e.Name()+"/"+path] = data
			}
		} else {
			out[e.Name()] = read(t, full)
		}
	}
	return out
}

func TestContents(t *testing.T) {
	for _, c := range []struct {
		name, spec string
		inMemory   bool
		want       map[string]string
	}{
		{"a configMap", `{volumes: [{name: v, configMap: {name: settings}}]}`, false, map[string]string{"a": "1", "b.conf": "2"}},
		{"a configMap's items", `{volumes: [{name: v, configMap: {name: settings, items: [{key: a, path: deep/er/x}, {key: a, path: z}]}}]}`, false, map[string]string{"deep/er/x": "1", "z": "1"}},
		{"an optional configMap", `{volumes: [{name: v, configMap: {name: absent, optional: true}}]}`, false, map[string]string{}},
		{"an optional key", `{volumes: [{name: v, configMap: {name: settings, optional: true, items: [{key: absent, path: x}]}}]}`, false, map[string]string{}},
		{"a secret", `{volumes: [{name: v, secret: {secretName: keys}}]}`, true, map[string]string{"password": "hush"}},
		{"the downward API", `{volumes: [{name: v, downwardAPI: {items: [
			{path: labels, fieldRef: {fieldPath: metadata.labels}},
			{path: id/uid, fieldRef: {fieldPath: metadata.uid}},
			{path: cpu, resourceFieldRef: {containerName: c, resource: limits.cpu, divisor: 1m}}]}}],
			containers: [{name: c, resources: {limits: {cpu: 500m}}, volumeMounts: [{name: v, mountPath: /v}]}]}`, true,
			map[string]string{"labels": `app="web"`, "id/uid": "u1", "cpu": "500"}},
		{"everything projected", `{serviceAccountName: robot, volumes: [{name: v, projected: {sources: [
			{configMap: {name: settings, items: [{key: a, path: a}]}},
			{secret: {name: keys}},
			{secret: {name: absent, optional: true}},
			{downwardAPI: {items: [{path: ns, fieldRef: {fieldPath: metadata.namespace}}]}},
			{clusterTrustBundle: {name: x, path: p, optional: true}},
			{serviceAccountToken: {path: token, expirationSeconds: 3607}}]}}]}`, true,
			map[string]string{"a": "1", "password": "hush", "ns": "ns", "token": "robot-1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.objects.configMaps["settings"] = map[string]string{"a": "1", "b.conf": "2"}
			w.objects.secrets["keys"] = map[string]string{"password": "hush"}
			v := w.setup(podOf(t, "u1", c.spec))["v"]
			if d := cmp.Diff(c.want, tree(t, v.Path)); d != "" {
				t.Error(d)
			}
			if !v.ReadOnly {
				t.Error("containers must not write to it")
			}
			if isTmpfs(t, v.Path) != c.inMemory {
				t.Errorf("in memory: %v; want %v", !c.inMemory, c.inMemory)
			}
			if !w.objects.registered["u1"] {
				t.Error("the pod's references are not followed")
			}
			w.teardown("u1")
			if w.objects.registered["u1"] {
				t.Error("the pod's references are still followed")
			}
		})
	}
}

func TestContentsRefusals(t *testing.T) {
	w := newWorld(t)
	w.objects.configMaps["settings"] = map[string]string{"a": "1", "..b": "2"}
	for spec, want := range map[string]string{
		`{configMap: {name: absent}}`:                                                                         `volume "v": configmaps "absent" not found`,
		`{configMap: {name: settings, items: [{key: absent, path: x}]}}`:                                      `ConfigMap ns/settings has no key "absent"`,
		`{configMap: {name: settings, items: [{key: a, path: ../x}]}}`:                                        `must not have ..`,
		`{configMap: {name: settings, items: [{key: a, path: /x}]}}`:                                          `must not start with /`,
		`{configMap: {name: settings, items: [{key: a, path: ..x}]}}`:                                         `must not start with ..`,
		`{configMap: {name: settings}}`:                                                                       `must not start with ..`,
		`{configMap: {name: settings, items: [{key: a, path: x}, {key: a, path: x/y}]}}`:                      `x`,
		`{secret: {secretName: absent}}`:                                                                      `not found`,
		`{projected: {sources: [{clusterTrustBundle: {name: x, path: p}}]}}`:                                  `clusterTrustBundle is not supported`,
		`{downwardAPI: {items: [{path: x, fieldRef: {fieldPath: status.podIP}}]}}`:                            `status.podIP`,
		`{downwardAPI: {items: [{path: x, resourceFieldRef: {containerName: other, resource: limits.cpu}}]}}`: `no container "other"`,
		`{nfs: {server: s, path: /}}`:                                                                         `does not support its kind`,
		`{emptyDir: {medium: HugePages}}`:                                                                     `not supported`,
		`{persistentVolumeClaim: {claimName: absent}}`:                                                        `not found`,
	} {
		_, err := w.Setup(t.Context(), podOf(t, "u1", `{volumes: [{name: v, `+spec[1:len(spec)-1]+`}]}`), Facts{})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n error %v; want one with %q", spec, err, want)
		}
	}
	for _, bad := range []struct{ uid, volume string }{{"..", "v"}, {"", "v"}, {"a/b", "v"}, {"u1", ".."}, {"u1", "a/../../b"}, {"u1", "x\x00"}} {
		pod := podOf(t, "u1", `{volumes: [{name: v, emptyDir: {}}]}`)
		pod.UID, pod.Spec.Volumes[0].Name = types.UID(bad.uid), bad.volume
		if _, err := w.Setup(t.Context(), pod, Facts{}); err == nil {
			t.Errorf("uid %q, volume %q were accepted", bad.uid, bad.volume)
		}
		if _, _, err := w.Mounts(pod, &corev1.Container{Name: "c"}, nil, nil); err == nil {
			t.Errorf("uid %q, volume %q were accepted by Mounts", bad.uid, bad.volume)
		}
		if bad.volume == "v" && w.Teardown(t.Context(), types.UID(bad.uid)) == nil {
			t.Errorf("uid %q was accepted by Teardown", bad.uid)
		}
	}
}

func TestModesAndOwners(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	w := newWorld(t)
	w.objects.configMaps["settings"] = map[string]string{"a": "1", "b": "2"}
	const volumes = `volumes: [
		{name: cm, configMap: {name: settings, defaultMode: 0400, items: [{key: a, path: a}, {key: b, path: sub/b, mode: 0711}]}},
		{name: plain, configMap: {name: settings}},
		{name: token, projected: {defaultMode: 0644, sources: [{serviceAccountToken: {path: token, expirationSeconds: 600}}]}}]`
	type perms struct{ mode, uid, gid uint32 }
	for _, c := range []struct {
		name, spec string
		want       map[string]perms
	}{
		{"nobody in particular", `{` + volumes + `}`, map[string]perms{
			"cm/a": {0o400, 0, 0}, "cm/sub/b": {0o711, 0, 0}, "plain/a": {0o644, 0, 0}, "token/token": {0o644, 0, 0}, "plain": {0o777, 0, 0},
		}},
		{"a group", `{securityContext: {fsGroup: 4321}, ` + volumes + `}`, map[string]perms{
			"cm/a": {0o440, 0, 4321}, "cm/sub/b": {0o751, 0, 4321}, "plain/a": {0o644, 0, 4321}, "token/token": {0o640, 0, 4321},
			"plain": {0o2777, 0, 4321}, "cm/..data/sub": {0o2750, 0, 4321},
		}},
		{"one user", `{securityContext: {runAsUser: 1234}, ` + volumes + `}`, map[string]perms{
			"cm/a": {0o400, 0, 0}, "token/token": {0o600, 1234, 0},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			vols := w.setup(podOf(t, "u1", c.spec))
			for path, want := range c.want {
				volume, rest, _ := strings.Cut(path, "/")
				s := stat(t, filepath.Join(vols[volume].Path, rest))
				if got := (perms{s.Mode & 0o7777, s.Uid, s.Gid}); got != want {
					t.Errorf("%s: %o of %d:%d; want %o of %d:%d", path, got.mode, got.uid, got.gid, want.mode, want.uid, want.gid)
				}
			}
			w.teardown("u1")
		})
	}
}

func TestOnlyUser(t *testing.T) {
	for spec, want := range map[string]int64{
		`{containers: [{name: a}]}`:                                                                                                     -1,
		`{securityContext: {runAsUser: 7}, containers: [{name: a}]}`:                                                                    7,
		`{securityContext: {runAsUser: 7}, containers: [{name: a, securityContext: {runAsUser: 8}}]}`:                                   8,
		`{securityContext: {runAsUser: 7}, containers: [{name: a, securityContext: {runAsUser: 8}}, {name: b}]}`:                        -1,
		`{containers: [{name: a, securityContext: {runAsUser: 8}}], initContainers: [{name: b}]}`:                                       -1,
		`{containers: [{name: a, securityContext: {runAsUser: 0}}]}`:                                                                    0,
		`{securityContext: {runAsUser: 7}, containers: [{name: a}], ephemeralContainers: [{name: d, securityContext: {runAsUser: 9}}]}`: -1,
	} {
		got := int64(-1)
		if u := onlyUser(podOf(t, "u", spec)); u != nil {
			got = *u
		}
		if got != want {
			t.Errorf("%s: %d; want %d", spec, got, want)
		}
	}
}

func TestTokensAreBoundToThePod(t *testing.T) {
	w := newWorld(t)
	w.setup(podOf(t, "u1", `{volumes: [{name: v, projected: {sources: [
		{serviceAccountToken: {path: t, audience: vault, expirationSeconds: 600}}]}}]}`))
	r := w.objects.requests[0].Spec
	if !slices.Equal(r.Audiences, []string{"vault"}) || *r.ExpirationSeconds != 600 ||
		r.BoundObjectRef == nil || r.BoundObjectRef.UID != "u1" || r.BoundObjectRef.Name != "pod-u1" || r.BoundObjectRef.Kind != "Pod" {
		t.Errorf("asked for %+v", r)
	}
}

// TestTokensWithNoServer: a volume keeps the token that it has, and one that has none does without.
func TestTokensWithNoServer(t *testing.T) {
	w := newWorld(t)
	w.objects.secrets["s"] = map[string]string{"k": "v"}
	pod := func(uid string) *corev1.Pod {
		return podOf(t, uid, `{volumes: [{name: v, projected: {sources: [
			{serviceAccountToken: {path: dir/t, expirationSeconds: 600}}, {secret: {name: s}}]}}]}`)
	}
	had := w.setup(pod("u1"))["v"]
	token := read(t, had.Path, "dir/t")
	w.objects.tokenErr = fmt.Errorf("token: %w", objects.ErrOffline)
	w.objects.secrets["s"] = map[string]string{"k": "new"}
	w.setup(pod("u1"))
	if got := read(t, had.Path, "dir/t"); got != token || read(t, had.Path, "k") != "new" {
		t.Errorf("the token was %q and is %q", token, got)
	}
	without := w.setup(pod("u2"))["v"]
	if _, err := os.Stat(filepath.Join(without.Path, "dir/t")); !os.IsNotExist(err) || read(t, without.Path, "k") != "new" {
		t.Errorf("a token from nowhere: %v", err)
	}
	w.objects.tokenErr = nil
	w.setup(pod("u2"))
	if got := read(t, without.Path, "dir/t"); got == "" {
		t.Error("the token did not come with the server")
	}
}

func TestTheClusterCAStandsIn(t *testing.T) {
	w := newWorld(t)
	w.o.ClusterCA = func() []byte { return []byte("CA") }
	pod := podOf(t, "u1", `{volumes: [{name: v, projected: {sources: [
		{configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}}]}}]}`)
	v := w.setup(pod)["v"]
	if got := read(t, v.Path, "ca.crt"); got != "CA" {
		t.Errorf("got %q", got)
	}
	w.objects.configMaps["kube-root-ca.crt"] = map[string]string{"ca.crt": "the namespace's"}
	w.setup(pod)
	if got := read(t, v.Path, "ca.crt"); got != "the namespace's" {
		t.Errorf("got %q; the real one counts once it is there", got)
	}
	if _, err := w.Setup(t.Context(), podOf(t, "u2", `{volumes: [{name: v, configMap: {name: other}}]}`), Facts{}); err == nil {
		t.Error("the CA stood in for another ConfigMap")
	}
}

func TestMountPointsInReadOnlyVolumes(t *testing.T) {
	w := newWorld(t)
	w.objects.configMaps["settings"] = map[string]string{"a": "1"}
	v := w.setup(podOf(t, "u1", `
volumes: [{name: cm, configMap: {name: settings}}, {name: e, emptyDir: {}}]
containers:
- name: c
  volumeMounts:
  - {name: cm, mountPath: /etc/app}
  - {name: e, mountPath: /etc/app/cache}
  - {name: e, mountPath: /etc/app/cache/deeper}
  - {name: e, mountPath: /etc/app-data}
  - {name: e, mountPath: /etc/app/x/y}`))["cm"]
	if !isFolder(v.Path+"/cache") || !isFolder(v.Path+"/x/y") || exists(v.Path+"/cache/deeper") || exists(v.Path+"-data") {
		t.Error("want cache and x/y, and nothing else")
	}
	if _, err := w.Setup(t.Context(), podOf(t, "u2", `
volumes: [{name: cm, configMap: {name: settings}}, {name: e, emptyDir: {}}]
containers: [{name: c, volumeMounts: [{name: cm, mountPath: ..}, {name: e, mountPath: ../../../x}]}]`), Facts{}); err != nil {
		t.Errorf("odd paths are cleaned: %v", err)
	}
	if exists(filepath.Join(w.root, "x")) || exists(filepath.Join(w.root, "u2/x")) {
		t.Error("a mount point was made outside of the volume")
	}
}

func claimed(source corev1.PersistentVolumeSource) (*corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {
	pvc := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "data", UID: "claim-1"}}
	pvc.Spec.VolumeName, pvc.Status.Phase = "pv-1", corev1.ClaimBound
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv-1"}}
	pv.Spec.PersistentVolumeSource = source
	pv.Spec.ClaimRef = &corev1.ObjectReference{UID: "claim-1"}
	return pvc, pv
}

func onZone(zone string) *corev1.VolumeNodeAffinity {
	return &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "zone", Operator: corev1.NodeSelectorOpIn, Values: []string{zone}}},
	}}}}
}

// A container gets the block device itself.
func TestBlockDevices(t *testing.T) {
	vols := map[string]Volume{"disk": {Path: "/dev/vda", Device: true}, "ro": {Path: "/dev/vdb", Device: true, ReadOnly: true}, "folder": {Path: "/srv"}}
	c := &corev1.Container{Name: "c", VolumeDevices: []corev1.VolumeDevice{{Name: "disk", DevicePath: "/dev/a"}, {Name: "ro", DevicePath: "/dev/b"}}}
	got, err := Devices(c, vols)
	if err != nil || len(got) != 2 || got[0].HostPath != "/dev/vda" || got[0].ContainerPath != "/dev/a" || got[0].Permissions != "mrw" || got[1].Permissions != "mr" {
		t.Errorf("%v, %v", got, err)
	}
	c.VolumeDevices = []corev1.VolumeDevice{{Name: "folder"}}
	if _, err := Devices(c, vols); err == nil || !strings.Contains(err.Error(), "volumeMode: Block") {
		t.Errorf("a folder is taken for a device: %v", err)
	}
}

func TestClaims(t *testing.T) {
	disk := t.TempDir()
	write(t, "x", disk, "file")
	for _, c := range []struct {
		name   string
		spec   string
		change func(*corev1.PersistentVolumeClaim, *corev1.PersistentVolume)
		want   string // of the error
		check  func(Volume)
	}{
		{name: "local"},
		{name: "read-only", spec: `{claimName: data, readOnly: true}`, check: func(v Volume) {
			if !v.ReadOnly {
				t.Error("a read-only claim can be written to")
			}
		}},
		{name: "hostPath", change: func(_ *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) {
			v.Spec.PersistentVolumeSource = corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: disk}}
		}},
		{name: "unbound", want: "is not bound to a volume (Pending)", change: func(c *corev1.PersistentVolumeClaim, _ *corev1.PersistentVolume) {
			c.Status.Phase, c.Spec.VolumeName = corev1.ClaimPending, ""
		}},
		{name: "another's", want: "is not bound to claim ns/data", change: func(_ *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) {
			v.Spec.ClaimRef.UID = "claim-2"
		}},
		{name: "going", want: "is being deleted", change: func(c *corev1.PersistentVolumeClaim, _ *corev1.PersistentVolume) {
			now := metav1.Now()
			c.DeletionTimestamp = &now
		}},
		{name: "a folder as a block device", want: "a block device is needed", change: func(c *corev1.PersistentVolumeClaim, _ *corev1.PersistentVolume) {
			block := corev1.PersistentVolumeBlock
			c.Spec.VolumeMode = &block
		}},
		{name: "here by its affinity", change: func(_ *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) {
			v.Spec.NodeAffinity = onZone("a")
		}},
		{name: "not for this node", want: "nodeAffinity does not match", change: func(_ *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) {
			v.Spec.NodeAffinity = onZone("b")
		}},
		{name: "elsewhere", want: "nodeAffinity", change: func(_ *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) {
			v.Spec.Local.Path = disk + "/absent"
		}},
		{name: "a file", want: "a folder or a block device is needed", change: func(_ *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) {
			v.Spec.Local.Path = disk + "/file"
		}},
		{name: "unsupported", want: "local and hostPath volumes", change: func(_ *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) {
			v.Spec.PersistentVolumeSource = corev1.PersistentVolumeSource{NFS: &corev1.NFSVolumeSource{}}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			pvc, pv := claimed(corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: disk}})
			if c.change != nil {
				c.change(pvc, pv)
			}
			w.objects.claims["data"], w.objects.volumes["pv-1"] = pvc, pv
			spec := c.spec
			if spec == "" {
				spec = `{claimName: data}`
			}
			vols, err := w.Setup(t.Context(), podOf(t, "u1", `{volumes: [{name: v, persistentVolumeClaim: `+spec+`}]}`), Facts{})
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error %v; want one with %q", err, c.want)
				}
				return
			}
			if err != nil || vols["v"].Path != disk {
				t.Fatalf("%v, %v", vols, err)
			}
			if c.check != nil {
				c.check(vols["v"])
			}
			w.teardown("u1")
			if read(t, disk, "file") != "x" {
				t.Error("Teardown touched the data")
			}
		})
	}
}

func TestEphemeralClaims(t *testing.T) {
	w := newWorld(t)
	pvc, pv := claimed(corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: t.TempDir()}})
	w.objects.claims["pod-u1-v"], w.objects.volumes["pv-1"] = pvc, pv
	pod := podOf(t, "u1", `{volumes: [{name: v, ephemeral: {}}]}`)
	if _, err := w.Setup(t.Context(), pod, Facts{}); err == nil || !strings.Contains(err.Error(), "not made for this pod") {
		t.Errorf("somebody's claim was taken: %v", err)
	}
	yes := true
	pvc.OwnerReferences = []metav1.OwnerReference{{UID: "u1", Controller: &yes}}
	w.setup(pod)
}

func TestLocalVolumesAreGivenToTheGroupOnceAPod(t *testing.T) {
	w := newWorld(t)
	disk := t.TempDir()
	file := write(t, "x", disk, "sub/file")
	if err := os.Symlink("/etc/passwd", filepath.Join(disk, "link")); err != nil {
		t.Fatal(err)
	}
	passwd := stat(t, "/etc/passwd")
	pvc, pv := claimed(corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: disk}})
	w.objects.claims["data"], w.objects.volumes["pv-1"] = pvc, pv
	pod := func(uid, policy string) *corev1.Pod {
		return podOf(t, uid, `{securityContext: {fsGroup: 4321, fsGroupChangePolicy: `+policy+`}, volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]}`)
	}
	w.setup(pod("u1", "Always"))
	if s := stat(t, file); s.Gid != 4321 || s.Mode&0o7777 != 0o664 {
		t.Errorf("file: %o of group %d; want 0664 of 4321", s.Mode&0o7777, s.Gid)
	}
	if s := stat(t, disk+"/sub"); s.Gid != 4321 || s.Mode&0o7777 != 0o2775 {
		t.Errorf("folder: %o of group %d; want 2775 of 4321", s.Mode&0o7777, s.Gid)
	}
	if now := stat(t, "/etc/passwd"); now.Gid != passwd.Gid || now.Mode != passwd.Mode {
		t.Fatal("a symlink was followed out of the volume")
	}
	take := func() {
		if err := os.Chown(file, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	take()
	w.setup(pod("u1", "Always"))
	w.setup(pod("u2", "OnRootMismatch"))
	if stat(t, file).Gid != 0 {
		t.Error("the files of a volume that is right were gone through again")
	}
	w.setup(pod("u3", "Always"))
	if stat(t, file).Gid != 4321 {
		t.Error("Always does it for each pod")
	}
	take()
	if err := os.Chown(disk, 0, 0); err != nil {
		t.Fatal(err)
	}
	w.setup(pod("u4", "OnRootMismatch"))
	if stat(t, file).Gid != 4321 {
		t.Error("OnRootMismatch did nothing although the root did not match")
	}
}

func TestTeardownTakesOnlyWhatIsThePods(t *testing.T) {
	w := newWorld(t)
	outside := t.TempDir()
	write(t, "precious", outside, "file")
	pod := podOf(t, "u1", `{volumes: [{name: d, emptyDir: {}}, {name: m, emptyDir: {medium: Memory}}]}`)
	vols := w.setup(pod)
	other := w.setup(podOf(t, "u11", `{volumes: [{name: d, emptyDir: {}}, {name: m, emptyDir: {medium: Memory}}]}`))
	// A container linked out, mounted something (Bidirectional), stacked mounts, and
	// holds a file open.
	dir := vols["d"].Path
	for name, target := range map[string]string{"link": outside, "loop": "loop", "nowhere": "/absent"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, at := range []string{dir + "/mnt", dir + "/mnt/inner", dir + "/mnt"} {
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount(outside, at, "", unix.MS_BIND, ""); err != nil {
			t.Fatal(err)
		}
		_ = os.Mkdir(outside+"/inner", 0o755)
	}
	busy, err := os.Create(filepath.Join(vols["m"].Path, "busy"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = busy.Close() }()

	if err := removeTree(w.root, "u1"); err == nil || !strings.Contains(err.Error(), "mounted") {
		t.Errorf("files were removed with mounts in the way: %v", err)
	}
	w.teardown("u1")
	if read(t, outside, "file") != "precious" {
		t.Error("Teardown deleted through a mount")
	}
	if !isTmpfs(t, other["m"].Path) {
		t.Error("Teardown took a mount of a pod whose uid begins alike")
	}
	w.teardown("u11")
	w.teardown("never-seen")
}

func TestTeardownOfVeryDeepFolders(t *testing.T) {
	w := newWorld(t)
	dir := w.setup(podOf(t, "u1", `{volumes: [{name: d, emptyDir: {}}]}`))["d"].Path
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 5*deepest + 7 { // far more than one path can name
		if err := unix.Mkdirat(fd, "a-folder-with-a-name", 0o700); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, "a-folder-with-a-name", unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(fd)
		fd = next
	}
	_ = unix.Close(fd)
	for i := range 2500 { // more than one reading of the folder
		write(t, "", dir, "many", "file-"+strings.Repeat("x", 100)+string(rune('a'+i%26))+strings.Repeat("y", i%50)+strconv.Itoa(i))
	}
	w.teardown("u1")
}

func TestOrphans(t *testing.T) {
	w := newWorld(t)
	for _, uid := range []string{"gone", "kept", "young"} {
		w.setup(podOf(t, uid, `{volumes: [{name: m, emptyDir: {medium: Memory}}]}`))
	}
	write(t, "not a pod", w.root, "file")
	w.Manager = New(w.o) // a restart
	w.setup(podOf(t, "young", `{volumes: [{name: m, emptyDir: {medium: Memory}}]}`))
	w.Orphans(func(uid types.UID) bool { return uid == "kept" })
	entries, err := os.ReadDir(w.root)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if d := cmp.Diff([]string{"file", "kept", "young"}, left); d != "" {
		t.Error(d)
	}
	New(Options{Root: w.root + "/absent", Objects: w.objects}).Orphans(func(types.UID) bool { return false })
}

func TestValidate(t *testing.T) {
	if err := (&Options{Objects: newFakeObjects()}).Validate(); err == nil {
		t.Error("no Root was accepted")
	}
	if err := (&Options{Root: "/x"}).Validate(); err == nil {
		t.Error("no Objects were accepted")
	}
}

func TestSetupNeedsNoLongerThanItsContext(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.objects.failWith(ctx.Err())
	if _, err := w.Setup(ctx, podOf(t, "u1", `{volumes: [{name: v, configMap: {name: x}}]}`), Facts{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
