package volumes

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/sys/mountinfo"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// disk is a block device of this machine, made of a file.
func disk(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, 16<<20); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("losetup", "--find", "--show", file).CombinedOutput()
	if err != nil {
		t.Fatalf("losetup: %v: %s (this test makes block devices: run it as root)", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("losetup: %v: %s", err, out)
		}
	})
	return device
}

// A local volume that names a disk is its file system: made where there is none, once, and shared by
// the pods of the node.
func TestLocalVolumeOnADisk(t *testing.T) {
	device := disk(t)
	link := filepath.Join(t.TempDir(), "disk1")
	if err := os.Symlink(device, link); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	pvc, pv := claimed(corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: link}})
	w.objects.claims["data"], w.objects.volumes["pv-1"] = pvc, pv
	pod := func(uid, claim string) *corev1.Pod {
		return podOf(t, uid, `{securityContext: {fsGroup: 1234}, volumes: [{name: v, persistentVolumeClaim: `+claim+`}]}`)
	}
	refused := func(uid, claim, want string) {
		t.Helper()
		if _, err := w.Setup(t.Context(), pod(uid, claim), Facts{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v; want one with %q", err, want)
		}
	}
	refused("ro", `{claimName: data, readOnly: true}`, "without a file system")

	a := w.setup(pod("a", `{claimName: data}`))["v"].Path
	if on, err := mountinfo.Mounted(a); err != nil || !on {
		t.Fatalf("%s: mounted %v, %v", a, on, err)
	}
	write(t, "x", a, "file")
	if again := w.setup(pod("a", `{claimName: data}`))["v"].Path; again != a {
		t.Errorf("%s, and before %s", again, a)
	}
	b := w.setup(pod("b", `{claimName: data, readOnly: true}`))["v"]
	if read(t, b.Path, "file") != "x" || !b.ReadOnly || b.Path == a {
		t.Errorf("the second pod has %+v", b)
	}
	w.teardown("a")
	if read(t, b.Path, "file") != "x" {
		t.Error("the end of one pod took the disk from the other")
	}
	w.teardown("b")
	mounts, err := mountinfo.GetMounts(func(i *mountinfo.Info) (skip, stop bool) { return i.Source != device, false })
	if err != nil || len(mounts) > 0 {
		t.Errorf("the disk is still mounted: %v, %v", mounts, err)
	}

	pv.Spec.Local.FSType = ptr.To("xfs")
	refused("c", `{claimName: data}`, "holds ext4, not xfs")
	pv.Spec.Local.FSType = nil
	if read(t, w.setup(pod("d", `{claimName: data}`))["v"].Path, "file") != "x" {
		t.Error("what was written is lost")
	}
	w.teardown("d")

	table := disk(t)
	mbr := make([]byte, 512)
	copy(mbr[446:], []byte{0, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 64, 0, 0}) // Linux, from sector 2048 on
	mbr[510], mbr[511] = 0x55, 0xaa
	if err := os.WriteFile(table, mbr, 0o600); err != nil {
		t.Fatal(err)
	}
	pv.Spec.Local.Path = table
	refused("e", `{claimName: data}`, "partition table")
}
