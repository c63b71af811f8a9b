package env

import (
	"errors"
	"io"
	"io/fs"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

func TestFind(t *testing.T) {
	const file = "# settings\n\n  A='1'\nB='two words' # why\nC='first\nsecond'\nD= 'nothing'\nE=''\n"
	for key, want := range map[string]string{"A": "1", "B": "two words", "C": "first\nsecond", "D": "", "E": ""} {
		if got, found, err := find(strings.NewReader(file), key); got != want || !found || err != nil {
			t.Errorf("%s is %q, %v, %v; want %q", key, got, found, err, want)
		}
	}
	if _, found, err := find(strings.NewReader(file), "F"); found || err != nil {
		t.Errorf("F: %v, %v", found, err)
	}
	for bad, want := range map[string]string{
		"A": "line 1 has no '='", "\nA ='1'": "line 2 has no name", "='1'": "no name", `A="1"`: "single quotes", "A=1": "single quotes",
		"X='1'\nA='1": "line 2: the single quote", "A='1' B": "more behind", "A='1\n2' 3": "line 2: there is more",
	} {
		if _, _, err := find(strings.NewReader(bad), "Z"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", bad, err, want)
		}
	}
}

func TestFileKeyRef(t *testing.T) {
	open := func(volume, path string) (io.ReadCloser, error) {
		switch {
		case volume != "v":
			return nil, errors.New("no such volume")
		case path != "env":
			return nil, fs.ErrNotExist
		}
		return io.NopCloser(strings.NewReader("A='1'")), nil
	}
	yes := true
	for _, c := range []struct {
		ref   corev1.FileKeySelector
		value string
		found bool
		err   string
	}{
		{corev1.FileKeySelector{VolumeName: "v", Path: "env", Key: "A"}, "1", true, ""},
		{corev1.FileKeySelector{VolumeName: "v", Path: "env", Key: "B"}, "", false, `has no key "B"`},
		{corev1.FileKeySelector{VolumeName: "v", Path: "env", Key: "B", Optional: &yes}, "", false, ""},
		{corev1.FileKeySelector{VolumeName: "v", Path: "x", Key: "A"}, "", false, "does not exist"},
		{corev1.FileKeySelector{VolumeName: "v", Path: "x", Key: "A", Optional: &yes}, "", false, ""},
		{corev1.FileKeySelector{VolumeName: "w", Path: "env", Key: "A", Optional: &yes}, "", false, "no such volume"},
	} {
		m := maker{open: open}
		value, found, err := m.file(&c.ref)
		if value != c.value || found != c.found || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%+v: %q, %v, %v", c.ref, value, found, err)
		}
	}
}
