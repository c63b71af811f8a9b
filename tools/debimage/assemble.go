package main

import (
	"archive/tar"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// assemble makes the image's files.
func assemble(ctx context.Context, o *options, d *debs) (tree, error) {
	root := tree{}
	base(root)
	if err := packages(ctx, root, o.packages, d); err != nil {
		return nil, err
	}
	if o.busybox {
		if err := busybox(ctx, root, d); err != nil {
			return nil, fmt.Errorf("adding busybox: %w", err)
		}
	}
	for _, f := range o.files {
		if err := copyIn(root, f); err != nil {
			return nil, fmt.Errorf("-file %s: %w", f, err)
		}
	}
	for _, l := range o.links {
		guest, target, _ := strings.Cut(l, "=")
		root.symlink(guest, target)
	}
	mergeUsr(root)
	root.complete()
	return root, nil
}

// base is what programs expect of any system.
func base(root tree) {
	root.folder("tmp", 0o777|fs.ModeSticky)
	root.folder("root", 0o700)
	for _, dir := range []string{"dev", "etc", "proc", "run", "sys", "var/log", "var/tmp"} {
		root.folder(dir, 0o755)
	}
	root.file("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\nredis:x:999:999::/var/lib/redis:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"))
	root.file("etc/group", 0o644, []byte("root:x:0:\nadm:x:4:\nwww-data:x:33:\nredis:x:999:\nnogroup:x:65534:\n"))
	root.file("etc/nsswitch.conf", 0o644, []byte("passwd: files\ngroup: files\nhosts: files dns\n"))
}

// unwanted are folders of packages that a container has no use for.
var unwanted = []string{
	"usr/share/doc/", "usr/share/man/", "usr/share/locale/", "usr/share/lintian/", "usr/share/bug/",
	"lib/systemd/", "usr/lib/systemd/", "etc/init.d/", "etc/logrotate.d/", "etc/default/", "etc/cron",
}

func packages(ctx context.Context, root tree, names []string, d *debs) error {
	files, err := d.fetch(ctx, names)
	if err != nil {
		return err
	}
	for _, deb := range files {
		content, err := d.unpack(ctx, deb)
		if err != nil {
			return err
		}
		for name, n := range content {
			if !slices.ContainsFunc(unwanted, func(dir string) bool { return strings.HasPrefix(name+"/", dir) }) && root[name] == nil {
				root[name] = n
			}
		}
	}
	return libraries(ctx, root, files, d)
}

// libraries adds the shared libraries that programs in root need and that are not
// there yet, from the packages that the given ones depend on, wave after wave.
func libraries(ctx context.Context, root tree, from []string, d *debs) error {
	seen := map[string]bool{}
	available := tree{}
	for {
		missing := resolve(root, available)
		if len(missing) == 0 {
			return nil
		}
		var wave []string
		for _, deb := range from {
			names, err := d.libraries(ctx, deb)
			if err != nil {
				return err
			}
			for _, name := range names {
				if !seen[name] {
					seen[name] = true
					wave = append(wave, name)
				}
			}
		}
		if len(wave) == 0 {
			return fmt.Errorf("no package that these depend on has the libraries %s: name it with -package", strings.Join(missing, ", "))
		}
		var err error
		if from, err = d.fetch(ctx, wave); err != nil {
			return err
		}
		for _, deb := range from {
			content, err := d.unpack(ctx, deb)
			if err != nil {
				return err
			}
			maps.Copy(available, content)
		}
	}
}

// resolve takes what root needs from what is available, and what that needs in
// turn, and returns what is in neither.
func resolve(root, available tree) (missing []string) {
	for {
		missing = nil
		taken := false
		for _, library := range root.needs() {
			if _, there := root.provides(library); there {
				continue
			}
			if name, found := available.provides(library); found {
				root.take(available, name)
				taken = true
			} else {
				missing = append(missing, library)
			}
		}
		if !taken {
			return missing
		}
	}
}

// busybox adds its applets; the shell that PATH finds is bash.
func busybox(ctx context.Context, root tree, d *debs) error {
	files, err := d.fetch(ctx, []string{"busybox-static", "bash-static"})
	if err != nil {
		return err
	}
	tool, err := program(ctx, d, files[0], "busybox")
	if err != nil {
		return err
	}
	shell, err := program(ctx, d, files[1], "bash-static")
	if err != nil {
		return err
	}
	names, err := applets(ctx, d, tool)
	if err != nil {
		return err
	}
	root.file("bin/busybox", 0o755, tool)
	for _, a := range names {
		if name := "bin/" + a; a != "busybox" && root[name] == nil {
			root.symlink(name, "busybox")
		}
	}
	root.file("bin/bash", 0o755, shell)
	root.symlink("usr/local/bin/sh", "../../../bin/bash")
	if root["usr/bin/env"] == nil { // where scripts' first lines look
		root.symlink("usr/bin/env", "../../bin/env")
	}
	return nil
}

// program reads one program out of a package.
func program(ctx context.Context, d *debs, deb, name string) ([]byte, error) {
	content, err := d.unpack(ctx, deb)
	if err != nil {
		return nil, err
	}
	for _, dir := range []string{"bin/", "usr/bin/"} {
		if n := content[dir+name]; n != nil && n.data != nil {
			return n.data, nil
		}
	}
	return nil, fmt.Errorf("%s has no program %s", deb, name)
}

// applets asks busybox what it can be called.
func applets(ctx context.Context, d *debs, program []byte) ([]string, error) {
	dir, err := os.MkdirTemp(d.dir, "busybox-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file, err := filepath.Abs(filepath.Join(dir, "busybox"))
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(file, program, 0o755); err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, file, "--list").Output()
	return strings.Fields(string(out)), err
}

// copyIn adds a file of this machine: HOST=GUEST[:MODE].
func copyIn(root tree, flag string) error {
	host, guest, _ := strings.Cut(flag, "=")
	mode := fs.FileMode(0o644)
	if name, octal, found := strings.Cut(guest, ":"); found {
		bits, err := strconv.ParseUint(octal, 8, 12)
		if err != nil {
			return fmt.Errorf("the mode %q is not octal: %w", octal, err)
		}
		guest, mode = name, (&tar.Header{Mode: int64(bits)}).FileInfo().Mode() // setuid and its like too
	}
	data, err := os.ReadFile(host)
	if err != nil {
		return err
	}
	root.file(guest, mode, data)
	return nil
}

// mergeUsr makes /bin and the like lead to /usr where all files lie there, as they
// do in packages of Debian 13 and later: programs and loaders are asked for by
// their old paths.
func mergeUsr(root tree) {
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		inUsr, outside := false, false
		for name := range root {
			inUsr = inUsr || strings.HasPrefix(name, "usr/"+dir+"/")
			outside = outside || name == dir || strings.HasPrefix(name, dir+"/")
		}
		if inUsr && !outside {
			root.symlink(dir, path.Join("usr", dir))
		}
	}
}
