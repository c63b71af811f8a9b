package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// debs fetches and reads Debian packages.
type debs struct {
	dir       string
	temporary bool
}

func newDebs(cache string) (*debs, error) {
	if cache != "" {
		cache, err := filepath.Abs(cache) // programs run in it
		if err != nil {
			return nil, err
		}
		return &debs{dir: cache}, os.MkdirAll(cache, 0o755)
	}
	dir, err := os.MkdirTemp("", "debimage-")
	return &debs{dir: dir, temporary: true}, err
}

func (d *debs) close() {
	if d.temporary {
		_ = os.RemoveAll(d.dir)
	}
}

// fetch downloads packages, unless they are there, and returns their files in order.
func (d *debs) fetch(ctx context.Context, packages []string) ([]string, error) {
	if len(packages) == 0 {
		return nil, nil
	}
	known, err := d.known(ctx, packages)
	if err != nil {
		return nil, err
	}
	var files, missing []string
	for _, name := range packages {
		deb, ok := known[name]
		if !ok {
			return nil, fmt.Errorf("apt-get does not say where package %s is; is it a real one?", name)
		}
		if !deb.complete(d.dir) {
			missing = append(missing, name)
		}
		files = append(files, filepath.Join(d.dir, deb.file))
	}
	if len(missing) > 0 {
		if _, err := d.output(ctx, d.dir, "apt-get", append([]string{"download", "-qq"}, missing...)...); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// download is a package's file, as apt-get calls it.
type download struct {
	file string
	size int64
}

// complete says whether the file is in dir; a broken download has another size.
func (d download) complete(dir string) bool {
	info, err := os.Stat(filepath.Join(dir, d.file))
	return err == nil && info.Size() == d.size
}

// known asks for the file of each package.
func (d *debs) known(ctx context.Context, packages []string) (map[string]download, error) {
	// In an empty folder: apt-get does not mention what is there already.
	empty, err := os.MkdirTemp(d.dir, "empty-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(empty) }()
	list, err := d.output(ctx, empty, "apt-get", append([]string{"download", "--print-uris", "-qq"}, packages...)...)
	if err != nil {
		return nil, fmt.Errorf("%w\nIf packages cannot be located: `apt-get update` brings the lists of packages", err)
	}
	return downloads(string(list))
}

// downloads reads lines of 'URI' NAME_VERSION_ARCHITECTURE.deb SIZE HASH.
func downloads(list string) (map[string]download, error) {
	out := map[string]download{}
	for _, line := range strings.Split(strings.TrimSpace(list), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			return nil, fmt.Errorf("apt-get said %q, which is not understood", line)
		}
		size, err := strconv.ParseInt(fields[2], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("apt-get said %q, which is not understood: %w", line, err)
		}
		file := filepath.Base(fields[1])
		name, _, _ := strings.Cut(file, "_")
		out[name] = download{file: file, size: size}
	}
	return out, nil
}

// unpack reads a package's files.
func (d *debs) unpack(ctx context.Context, deb string) (tree, error) {
	data, err := d.output(ctx, d.dir, "dpkg-deb", "--fsys-tarfile", deb)
	if err != nil {
		return nil, err
	}
	out := tree{}
	for r := tar.NewReader(bytes.NewReader(data)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", deb, err)
		}
		if err := out.add(h, r); err != nil {
			return nil, fmt.Errorf("%s: %w", deb, err)
		}
	}
}

// libraries lists the packages that a package depends on and that look as if they
// held shared libraries.
func (d *debs) libraries(ctx context.Context, deb string) ([]string, error) {
	text, err := d.output(ctx, d.dir, "dpkg-deb", "--showformat", "${Pre-Depends}, ${Depends}", "--show", deb)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, dep := range strings.Split(string(text), ",") {
		first, _, _ := strings.Cut(dep, "|")
		fields := strings.Fields(first)
		if len(fields) == 0 || !strings.Contains(fields[0], "lib") { // libc6, zlib1g…
			continue
		}
		name, _, _ := strings.Cut(fields[0], ":")
		out = append(out, name)
	}
	return out, nil
}

func (d *debs) architecture(ctx context.Context) (string, error) {
	out, err := d.output(ctx, d.dir, "dpkg", "--print-architecture")
	return strings.TrimSpace(string(out)), err
}

func (d *debs) output(ctx context.Context, dir, program string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}
