package cluster

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Image describes an archive to make: one static program under one or more names.
type Image struct {
	Names   []string
	Program string            // file on this machine
	Path    string            // where it is in the image
	Links   []string          // further names of it
	Files   map[string]string // small files
	Config  v1.Config
}

// Write makes the archive.
func (i Image) Write(path string) error {
	layer, err := i.layer()
	if err != nil {
		return err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer)), nil })
	if err != nil {
		return err
	}
	image, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		return err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Config = "linux", "amd64", i.Config
	if image, err = mutate.ConfigFile(image, file); err != nil {
		return err
	}
	tags := map[name.Tag]v1.Image{}
	for _, n := range i.Names {
		tag, err := name.NewTag(n)
		if err != nil {
			return err
		}
		tags[tag] = image
	}
	return tarball.MultiWriteToFile(path, tags)
}

func (i Image) layer() ([]byte, error) {
	program, err := os.ReadFile(i.Program)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h *tar.Header, content []byte) error {
		h.Size = int64(len(content))
		if err := w.WriteHeader(h); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
		_, err := w.Write(content)
		return err
	}
	for _, dir := range []string{"tmp/", "etc/", "proc/", "sys/", "dev/", "host/"} {
		if err := add(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o1777}, nil); err != nil {
			return nil, err
		}
	}
	for name, text := range i.Files {
		if err := add(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644}, []byte(text)); err != nil {
			return nil, err
		}
	}
	for _, link := range i.Links {
		if err := add(&tar.Header{Name: link, Typeflag: tar.TypeSymlink, Linkname: "/" + i.Path, Mode: 0o777}, nil); err != nil {
			return nil, err
		}
	}
	if err := add(&tar.Header{Name: i.Path, Typeflag: tar.TypeReg, Mode: 0o755}, program); err != nil {
		return nil, err
	}
	return b.Bytes(), w.Close()
}
