package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// tree is the files of an image by path, without a leading slash.
type tree map[string]*node

// node is a file, a folder or a symlink.
type node struct {
	kind byte // a tar type flag
	mode fs.FileMode
	link string
	data []byte
}

// add takes a file from a package.
func (t tree) add(h *tar.Header, r io.Reader) error {
	name := clean(h.Name)
	if name == "" {
		return nil
	}
	n := &node{kind: h.Typeflag, mode: h.FileInfo().Mode(), link: h.Linkname}
	switch h.Typeflag {
	case tar.TypeReg:
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		n.data = data
	case tar.TypeLink: // a second name of a file that came before
		target := t[clean(h.Linkname)]
		if target == nil {
			return fmt.Errorf("%s is a hard link to %s, which is not there", name, h.Linkname)
		}
		n = target
	case tar.TypeDir, tar.TypeSymlink:
	default:
		return fmt.Errorf("%s is of a kind (%c) that no package should have", name, h.Typeflag)
	}
	t[name] = n
	return nil
}

func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func (t tree) file(name string, mode fs.FileMode, data []byte) {
	t[clean(name)] = &node{kind: tar.TypeReg, mode: mode, data: data}
}

func (t tree) folder(name string, mode fs.FileMode) {
	t[clean(name)] = &node{kind: tar.TypeDir, mode: mode}
}

func (t tree) symlink(name, target string) {
	t[clean(name)] = &node{kind: tar.TypeSymlink, mode: 0o777, link: target}
}

// complete adds the folders that files lie in and that nobody mentioned.
func (t tree) complete() {
	for _, name := range slices.Collect(maps.Keys(t)) {
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if t[dir] == nil {
				t.folder(dir, 0o755)
			}
		}
	}
}

// archive is the tree as a tar file that depends on nothing but its files.
func (t tree) archive() ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, name := range slices.Sorted(maps.Keys(t)) {
		n := t[name]
		h := &tar.Header{Typeflag: n.kind, Name: name, Linkname: n.link, Mode: unixMode(n.mode), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
		switch n.kind {
		case tar.TypeDir:
			h.Name += "/"
		case tar.TypeReg:
			h.Size = int64(len(n.data))
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(n.data); err != nil {
			return nil, err
		}
	}
	err := w.Close()
	return out.Bytes(), err
}

func unixMode(mode fs.FileMode) int64 {
	out := int64(mode.Perm())
	if mode&fs.ModeSetuid != 0 {
		out |= 0o4000
	}
	if mode&fs.ModeSetgid != 0 {
		out |= 0o2000
	}
	if mode&fs.ModeSticky != 0 {
		out |= 0o1000
	}
	return out
}

// needs lists the shared libraries that the tree's programs ask for, by name, and
// their loaders, by path.
func (t tree) needs() []string {
	found := map[string]bool{}
	for _, n := range t {
		for _, library := range n.needs() {
			found[library] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

func (n *node) needs() []string {
	if n.kind != tar.TypeReg || !bytes.HasPrefix(n.data, []byte(elf.ELFMAG)) {
		return nil
	}
	f, err := elf.NewFile(bytes.NewReader(n.data))
	if err != nil {
		return nil // for another machine, or none of ours
	}
	out, err := f.ImportedLibraries()
	if err != nil {
		return nil
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			name, err := io.ReadAll(p.Open())
			if err == nil {
				out = append(out, strings.TrimRight(string(name), "\x00"))
			}
		}
	}
	return out
}

// provides finds a shared library, or a loader, and returns its path.
func (t tree) provides(library string) (string, bool) {
	if path.IsAbs(library) {
		for _, name := range []string{clean(library), clean("usr" + library)} {
			if t[name] != nil {
				return name, true
			}
		}
		return "", false
	}
	for _, name := range slices.Sorted(maps.Keys(t)) {
		if path.Base(name) == library && t[name].kind != tar.TypeDir && inLibraryFolder(name) {
			return name, true
		}
	}
	return "", false
}

// inLibraryFolder says whether the loader looks there without being told.
func inLibraryFolder(name string) bool {
	dir := strings.TrimPrefix(path.Dir(name), "usr/")
	return dir == "lib" || dir == "lib64" || path.Dir(dir) == "lib" && strings.Contains(dir, "-linux-gnu")
}

// take copies a file from another tree, with what it links to, under each of its names.
func (t tree) take(from tree, name string) {
	for from[name] != nil && t[name] == nil {
		n := from[name]
		t[name] = n
		if n.kind != tar.TypeSymlink {
			return
		}
		if path.IsAbs(n.link) {
			name = clean(n.link)
		} else {
			name = clean(path.Join(path.Dir(name), n.link))
		}
	}
}
