package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/pflag"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/everynode/everynode/internal/cli/layout"
)

// connection is how a command finds its API server, which may be any Kubernetes.
type connection struct {
	kubeconfig, context, namespace, dataDir string
	// plugin says that kubectl called us: its own rules hold then, not this machine's data directory.
	plugin bool
}

func (c *connection) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&c.kubeconfig, "kubeconfig", "", "kubeconfig of the cluster")
	flags.StringVar(&c.context, "context", "", "context of the kubeconfig")
	flags.StringVarP(&c.namespace, "namespace", "n", "", "namespace (default: that of the kubeconfig's context)")
	if !c.plugin {
		flags.StringVar(&c.dataDir, "data-dir", "", "data directory of a server on this machine, for its admin.kubeconfig")
	}
}

const connectionHelp = `Any Kubernetes API server will do: the one that --kubeconfig or KUBECONFIG names, else the
everynode of this machine (--data-dir, by default ` + layout.DefaultDataDir + `), else kubectl's.`

// connect returns a client and the namespace to use. Warnings of the server are handed to warn.
func (c *connection) connect(warn rest.WarningHandler) (kubernetes.Interface, string, error) {
	if c.kubeconfig != "" && c.dataDir != "" {
		return nil, "", usagef("--kubeconfig and --data-dir both name a cluster; give one")
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	if rules.ExplicitPath = c.explicit(); rules.ExplicitPath != "" {
		if _, err := os.Stat(rules.ExplicitPath); errors.Is(err, fs.ErrNotExist) {
			return nil, "", fmt.Errorf("there is no %s; name a kubeconfig with --kubeconfig, or a server's --data-dir on its machine", rules.ExplicitPath)
		}
	}
	overrides := &clientcmd.ConfigOverrides{CurrentContext: c.context}
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	config, err := loader.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, "", errors.New("no cluster is known here: name a kubeconfig with --kubeconfig, or start everynode with `everynode up`")
	}
	if err != nil {
		return nil, "", err
	}
	namespace := c.namespace
	if namespace == "" {
		if namespace, _, err = loader.Namespace(); err != nil {
			return nil, "", err
		}
	}
	config.QPS = -1 // a handful of lists
	config.WarningHandler = warn
	client, err := kubernetes.NewForConfig(config)
	return client, namespace, err
}

// explicit is the kubeconfig that the flags, or this machine, say to use; "" for kubectl's own rules.
func (c *connection) explicit() string {
	switch {
	case c.kubeconfig != "":
		return c.kubeconfig
	case c.dataDir != "":
		return layout.Layout{DataDir: c.dataDir}.AdminKubeconfig()
	case c.plugin || os.Getenv("KUBECONFIG") != "":
		return ""
	}
	local := layout.Layout{DataDir: layout.DefaultDataDir}.AdminKubeconfig()
	if _, err := os.Stat(local); errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return local // also when it may not be read: the error says so
}

// warningPrinter shows the server's warnings, each once.
type warningPrinter struct {
	w    io.Writer
	seen map[string]bool
}

func newWarningPrinter(w io.Writer) *warningPrinter {
	return &warningPrinter{w: w, seen: map[string]bool{}}
}

// HandleWarningHeader implements rest.WarningHandler.
func (p *warningPrinter) HandleWarningHeader(code int, _ string, text string) {
	if code != 299 || text == "" || p.seen[text] {
		return
	}
	p.seen[text] = true
	fmt.Fprintf(p.w, "warning: %s\n", text)
}
