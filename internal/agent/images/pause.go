package images

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	_ "embed" // for the pause processes
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
)

//go:generate sh pause/make.sh

// PauseImage is the sandbox image to name in the runtime's configuration.
const PauseImage = "everynode.local/pause:1"

// The process that holds a pod's namespaces; see pause/pause_amd64.S.
var (
	//go:embed pause/pause_amd64
	pauseAMD64 []byte
	//go:embed pause/pause_arm64
	pauseARM64 []byte
)

// pauseBinary is the pause process for an architecture as Go names it.
func pauseBinary(arch string) ([]byte, error) {
	switch arch {
	case "amd64":
		return pauseAMD64, nil
	case "arm64":
		return pauseARM64, nil
	}
	return nil, fmt.Errorf("no pause process for %s; set sandbox_image in the runtime's configuration to one that has it", arch)
}

// PauseArchive is the pause image for this machine as an OCI archive, and the
// image's ID. Equal versions give equal bytes.
func PauseArchive() (archive []byte, id string, err error) {
	binary, err := pauseBinary(runtime.GOARCH)
	if err != nil {
		return nil, "", err
	}
	layer, err := tarOf(file{"pause", 0o755, binary})
	if err != nil {
		return nil, "", err
	}
	created := time.Unix(0, 0).UTC()
	config := imagespec.Image{
		Created:  &created,
		Platform: imagespec.Platform{Architecture: runtime.GOARCH, OS: "linux"},
		Config:   imagespec.ImageConfig{Entrypoint: []string{"/pause"}, User: "65535:65535"},
		RootFS:   imagespec.RootFS{Type: "layers", DiffIDs: []digest.Digest{digest.FromBytes(layer)}},
	}
	l := &layout{}
	layerDesc := l.blob(imagespec.MediaTypeImageLayer, layer)
	configDesc := l.json(imagespec.MediaTypeImageConfig, config)
	manifest := l.json(imagespec.MediaTypeImageManifest, imagespec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: imagespec.MediaTypeImageManifest,
		Config:    configDesc,
		Layers:    []imagespec.Descriptor{layerDesc},
	})
	manifest.Annotations = map[string]string{"io.containerd.image.name": PauseImage, imagespec.AnnotationRefName: "1"}
	archive, err = l.archive(manifest)
	return archive, configDesc.Digest.String(), err
}

// layout collects the files of an OCI image layout.
type layout struct {
	files []file
	err   error
}

func (l *layout) blob(mediaType string, b []byte) imagespec.Descriptor {
	l.files = append(l.files, file{fmt.Sprintf("blobs/sha256/%x", sha256.Sum256(b)), 0o644, b})
	return imagespec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

func (l *layout) json(mediaType string, v any) imagespec.Descriptor {
	b, err := json.Marshal(v)
	l.err = errors.Join(l.err, err)
	return l.blob(mediaType, b)
}

func (l *layout) archive(manifest imagespec.Descriptor) ([]byte, error) {
	index, err := json.Marshal(imagespec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: imagespec.MediaTypeImageIndex,
		Manifests: []imagespec.Descriptor{manifest},
	})
	if err = errors.Join(l.err, err); err != nil {
		return nil, err
	}
	version := []byte(`{"imageLayoutVersion":"` + imagespec.ImageLayoutVersion + `"}`)
	return tarOf(append(l.files, file{imagespec.ImageIndexFile, 0o644, index}, file{imagespec.ImageLayoutFile, 0o644, version})...)
}

type file struct {
	name    string
	mode    int64
	content []byte
}

// tarOf packs files with fixed times and owners.
func tarOf(files ...file) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.content)), Typeflag: tar.TypeReg, ModTime: time.Unix(0, 0)}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := io.Copy(w, bytes.NewReader(f.content)); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
