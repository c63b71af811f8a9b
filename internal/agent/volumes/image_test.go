package volumes

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// mounter puts a file where an image should be.
type mounter struct {
	calls []string
	err   error
}

func (m *mounter) Mount(_ context.Context, ref, target string) error {
	m.calls = append(m.calls, "mount "+ref)
	if m.err != nil {
		return m.err
	}
	return os.WriteFile(filepath.Join(target, "file"), []byte(ref), 0o644)
}

func (m *mounter) Unmount(_ context.Context, target string) error {
	m.calls = append(m.calls, "unmount "+filepath.Base(target))
	return m.err
}

func TestImageVolumes(t *testing.T) {
	w, images := newWorld(t), &mounter{}
	pod := podOf(t, "u1", `{volumes: [{name: v, image: {reference: "models:1"}}, {name: unused, image: {reference: other}}, {name: e, emptyDir: {}}]}`)
	pod.Spec.Containers[0].VolumeMounts = slices.DeleteFunc(pod.Spec.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "unused" })
	if list := ImageVolumes(pod); len(list) != 1 || list[0].Name != "v" {
		t.Fatalf("image volumes %v", list)
	}
	if vols := w.setup(pod); len(vols) != 1 {
		t.Errorf("Setup made %v; images are not pulled yet", vols)
	}
	if _, err := w.MountImage(t.Context(), pod.UID, "v", "sha256:1"); err == nil {
		t.Error("an image was mounted by nobody")
	}
	w.o.Images = images
	images.err = errors.New("no such image")
	if _, err := w.MountImage(t.Context(), pod.UID, "v", "sha256:1"); err == nil {
		t.Error("the error is lost")
	}
	images.err = nil
	v, err := w.MountImage(t.Context(), pod.UID, "v", "sha256:1")
	if err != nil || !v.ReadOnly || read(t, v.Path, "file") != "sha256:1" {
		t.Errorf("%+v, %v", v, err)
	}
	images.err = errors.New("busy")
	if err := w.Teardown(t.Context(), pod.UID); err == nil {
		t.Error("a mount that stays is passed over")
	}
	images.err = nil
	w.teardown("u1")
	if want := "unmount v"; images.calls[len(images.calls)-1] != want {
		t.Errorf("%v; want %q at last", images.calls, want)
	}
	if exists(filepath.Join(w.root, "u1")) {
		t.Error("the pod's folder stays")
	}
}
