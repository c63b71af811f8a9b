// Command debimage assembles a container image from Debian packages and writes it
// as an OCI archive, where no registry can be reached: for examples and tests.
//
//	go run ./tools/debimage -name docker.io/prom/node-exporter:v1.5.0 \
//	    -package prometheus-node-exporter \
//	    -link /bin/node_exporter=/usr/bin/prometheus-node-exporter \
//	    -entrypoint /bin/node_exporter -o node-exporter.tar
//
//	go run ./tools/debimage -name docker.io/library/busybox:1.35 -busybox -cmd sh -o busybox.tar
//
//	ctr -n k8s.io images import node-exporter.tar
//
// The files of each -package go into the image, without documentation and service
// files, and with them the shared libraries that its programs need, found in the
// packages it depends on. Packages are fetched with `apt-get download` and read
// with `dpkg-deb`; nothing is installed, and root is not needed. Equal packages and
// flags give equal bytes.
//
// Flags (those marked * may be repeated):
//
//	-name REF *          full name of the image, with registry and tag
//	-package NAME *      Debian package whose files go into the image
//	-link GUEST=TARGET * symlink at GUEST
//	-file HOST=GUEST[:MODE] *  copy of a file of this machine; MODE is octal, 0644 by default
//	-busybox             busybox's applets in /bin, /bin/sh among them; the sh that PATH finds is
//	                     bash, as busybox's own drops environment variables such as data-1
//	-entrypoint ARG *    one argument of the entrypoint
//	-cmd ARG *           one argument of the default command
//	-env NAME=VALUE *    environment variable (PATH is set anyway)
//	-user USER[:GROUP]   who the program runs as, as numbers or names
//	-cache DIR           keeps downloads for the next time
//	-o FILE              where the archive goes
//
// An image always has /tmp, the usual empty folders, and /etc/passwd and /etc/group
// with root, www-data, redis and nobody; it has nothing else of a distribution.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "debimage:", err)
		}
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	names, packages, links, files, entrypoint, cmd, env repeated
	busybox                                             bool
	user, cache, out                                    string
}

type repeated []string

func (r *repeated) String() string     { return strings.Join(*r, " ") }
func (r *repeated) Set(s string) error { *r = append(*r, s); return nil }

func parse(args []string) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("debimage", flag.ContinueOnError)
	fs.Var(&o.names, "name", "full `name` of the image, with registry and tag; may be repeated")
	fs.Var(&o.packages, "package", "Debian `package` whose files go into the image; may be repeated")
	fs.Var(&o.links, "link", "symlink, as `GUEST=TARGET`; may be repeated")
	fs.Var(&o.files, "file", "copy of a file of this machine, as `HOST=GUEST[:MODE]`; may be repeated")
	fs.Var(&o.entrypoint, "entrypoint", "one `argument` of the entrypoint; may be repeated")
	fs.Var(&o.cmd, "cmd", "one `argument` of the default command; may be repeated")
	fs.Var(&o.env, "env", "environment variable, as `NAME=VALUE`; may be repeated")
	fs.BoolVar(&o.busybox, "busybox", false, "add busybox's applets; bash is the sh that PATH finds")
	fs.StringVar(&o.user, "user", "", "`user[:group]` the program runs as")
	fs.StringVar(&o.cache, "cache", "", "`folder` that keeps downloads for the next time")
	fs.StringVar(&o.out, "o", "", "`file` to write")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("%q is no flag; see -help", fs.Arg(0))
	}
	return o, o.validate()
}

func (o *options) validate() error {
	if len(o.names) == 0 || o.out == "" {
		return errors.New("-name and -o are needed; see -help")
	}
	if len(o.packages) == 0 && len(o.files) == 0 && !o.busybox {
		return errors.New("the image would be empty: give -package, -file or -busybox")
	}
	for _, name := range o.names {
		registry, rest, ok := strings.Cut(name, "/")
		if !ok || !strings.ContainsAny(registry, ".:") && registry != "localhost" || !strings.Contains(rest, ":") {
			return fmt.Errorf("-name %s: the full name is needed, like docker.io/library/busybox:1.35", name)
		}
	}
	for flag, pairs := range map[string]repeated{"-link": o.links, "-file": o.files, "-env": o.env} {
		for _, pair := range pairs {
			if left, right, ok := strings.Cut(pair, "="); !ok || left == "" || right == "" && flag != "-env" {
				return fmt.Errorf("%s %s: it has no two sides of a =", flag, pair)
			}
		}
	}
	return nil
}

func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	debs, err := newDebs(o.cache)
	if err != nil {
		return err
	}
	defer debs.close()
	root, err := assemble(ctx, o, debs)
	if err != nil {
		return err
	}
	arch, err := debs.architecture(ctx)
	if err != nil {
		return err
	}
	if err := writeArchive(o, root, arch); err != nil {
		return fmt.Errorf("writing %s: %w", o.out, err)
	}
	return nil
}
