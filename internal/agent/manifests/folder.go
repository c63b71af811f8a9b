package manifests

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
)

// maxSize bounds a manifest, as the kubelet does.
const maxSize = 10 << 20

// Problem is what is wrong with a file.
type Problem struct {
	File, Message string
	// Minor: its pods run all the same.
	Minor bool
}

// Reading is what a folder holds.
type Reading struct {
	// Pods are complete, sorted by namespace and name, no two with the same.
	Pods []*corev1.Pod
	// Problems are sorted by file.
	Problems []Problem
	// Unread are the files that hold, or held, pods nobody can tell at present.
	Unread []string
}

// Folder is a folder of manifests. It belongs to one goroutine.
type Folder struct {
	dir, node string
	// read is what each file held when it was last looked at.
	read map[string]content
}

// content is what a file holds.
type content struct {
	stamp    string // of the file when it was read
	pods     []*corev1.Pod
	problems []Problem
	broken   bool
}

// NewFolder is the folder dir of a node; it need not exist.
func NewFolder(dir, node string) *Folder {
	return &Folder{dir: dir, node: node, read: map[string]content{}}
}

// Read looks at the folder. An error means that nothing is known of it; a folder that does not exist
// is empty.
func (f *Folder) Read() (Reading, error) {
	entries, err := os.ReadDir(f.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Reading{}, fmt.Errorf("folder of static pods: %w", err)
	}
	now := map[string]content{}
	for _, entry := range entries { // sorted by name
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		path := filepath.Join(f.dir, entry.Name())
		if c, ok := f.look(path); ok {
			now[path] = c
		}
	}
	f.read = now
	return f.reading(), nil
}

// look reads a file unless it is as it was. It is not ok if there is none.
func (f *Folder) look(path string) (c content, ok bool) {
	old, known := f.read[path]
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) && !isLink(path):
		return content{}, false // gone since the folder was listed
	case err != nil:
		return old.with(path, err), true
	case info.IsDir():
		return content{}, false
	case !info.Mode().IsRegular(): // reading a pipe might never end
		return old.with(path, fmt.Errorf("it is a %s: a manifest must be a regular file", info.Mode().Type())), true
	}
	if stamp := stampOf(info); known && old.stamp != "" && stamp == old.stamp {
		return old, true
	}
	data, err := readFile(path)
	if err != nil {
		return old.with(path, err), true
	}
	c = f.parse(path, data)
	if c.broken {
		c = c.keeping(old)
	}
	c.stamp = stampOf(info)
	return c, true
}

func isLink(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode().Type() == fs.ModeSymlink
}

// stampOf changes when the file is written or replaced.
func stampOf(info fs.FileInfo) string {
	stamp := fmt.Sprintf("%d %d", info.Size(), info.ModTime().UnixNano())
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		stamp += fmt.Sprintf(" %d %d.%d", s.Ino, s.Ctim.Sec, s.Ctim.Nsec)
	}
	return stamp
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxSize+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxSize {
		return nil, fmt.Errorf("it is larger than %d MiB", maxSize>>20)
	}
	return data, nil
}

// with is the content of a file that cannot be read any more.
func (c content) with(path string, err error) content {
	return content{pods: c.pods, problems: []Problem{{File: path, Message: err.Error()}}, broken: true}
}

// keeping adds the pods that the file held before and that what is legible of it does not name.
func (c content) keeping(old content) content {
	for _, pod := range old.pods {
		if !slices.ContainsFunc(c.pods, func(p *corev1.Pod) bool { return FullName(p) == FullName(pod) }) {
			c.pods = append(c.pods, pod)
		}
	}
	return c
}

// parse makes the pods of a file's text.
func (f *Folder) parse(path string, data []byte) content {
	var c content
	fail := func(err error) {
		c.broken = true
		c.problems = append(c.problems, Problem{File: path, Message: err.Error()})
	}
	list, err := decode(data)
	if err != nil {
		fail(err)
	}
	if err == nil && len(list) == 0 {
		c.problems = append(c.problems, Problem{File: path, Message: "it holds no pod", Minor: true})
	}
	for _, d := range list {
		pod, err := staticPod(d.pod, path, f.node)
		if err != nil {
			fail(fmt.Errorf("pod %q: %w", d.pod.Name, err))
			continue
		}
		for _, warning := range d.warnings {
			c.problems = append(c.problems, Problem{File: path, Message: fmt.Sprintf("pod %q: %s", d.pod.Name, warning), Minor: true})
		}
		c.pods = append(c.pods, pod)
	}
	return c
}

// reading puts the files together. Where two name the same pod, the first file has it.
func (f *Folder) reading() Reading {
	var r Reading
	from := map[string]string{}
	paths := make([]string, 0, len(f.read))
	for path := range f.read {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		c := f.read[path]
		r.Problems = append(r.Problems, c.problems...)
		if c.broken {
			r.Unread = append(r.Unread, path)
		}
		for _, pod := range c.pods {
			name := FullName(pod)
			if first, taken := from[name]; taken {
				r.Problems = append(r.Problems, Problem{File: path, Message: fmt.Sprintf("pod %s stands in %s already; this one does not run", name, first)})
				continue
			}
			from[name] = path
			r.Pods = append(r.Pods, pod)
		}
	}
	slices.SortFunc(r.Pods, func(a, b *corev1.Pod) int { return strings.Compare(FullName(a), FullName(b)) })
	return r
}
