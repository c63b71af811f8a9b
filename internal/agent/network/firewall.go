package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"text/template"
)

// jump is a rule of a built-in chain that leads to one of ours. Those that must win over a
// distribution's own rules go first.
type jump struct {
	table, from, to string
	first           bool
}

var jumps = []jump{
	{table: "nat", from: "POSTROUTING", to: "EVERYNODE-POSTROUTING"},
	{table: "filter", from: "FORWARD", to: "EVERYNODE-FORWARD"},
	{table: "filter", from: "INPUT", to: "EVERYNODE-INPUT", first: true},
}

// rules is everything in our chains, applied as a whole: iptables-restore replaces a chain that it
// is given, in one transaction, and leaves the others.
//
// Masquerading is for pods that talk to what does not know the way back to a pod: all but pods of
// the cluster. Accepting in FORWARD matters where its policy is to drop (docker sets it so).
var rules = template.Must(template.New("rules").Parse(`*nat
:EVERYNODE-POSTROUTING - [0:0]
-A EVERYNODE-POSTROUTING -s {{.Pods}} -d 224.0.0.0/4 -j RETURN
-A EVERYNODE-POSTROUTING -s {{.Pods}} ! -d {{.Cluster}} -j MASQUERADE
COMMIT
*filter
:EVERYNODE-FORWARD - [0:0]
-A EVERYNODE-FORWARD -s {{.Cluster}} -j ACCEPT
-A EVERYNODE-FORWARD -d {{.Cluster}} -j ACCEPT
:EVERYNODE-INPUT - [0:0]
-A EVERYNODE-INPUT -i {{.Bridge}} -d {{.Service}} -p tcp -j ACCEPT
-A EVERYNODE-INPUT -i {{.Bridge}} -d {{.Gateway}} -p tcp --dport {{.APIPort}} -j ACCEPT
COMMIT
`))

// firewall is what the rules are made of.
type firewall struct {
	pods, cluster netip.Prefix
	service       netip.Addr
	apiPort       string // where the forwarder on the bridge listens
}

func (f firewall) text() (string, error) {
	var b strings.Builder
	err := rules.Execute(&b, map[string]any{
		"Pods": f.pods, "Cluster": f.cluster, "Service": f.service, "Gateway": gatewayOf(f.pods), "Bridge": bridgeName, "APIPort": f.apiPort,
	})
	return b.String(), err
}

// ensure puts the rules into the kernel, and the jumps to them.
func (f firewall) ensure(ctx context.Context) error {
	text, err := f.text()
	if err != nil {
		return err
	}
	if err := iptables(ctx, text, "iptables-restore", "--noflush", "-w"); err != nil {
		return fmt.Errorf("masquerade and forwarding rules: %w", err)
	}
	return ensureJumps(ctx)
}

// ensureJumps adds the jumps that are missing; a firewall service that was reloaded may have
// dropped them.
func ensureJumps(ctx context.Context) error {
	for _, j := range jumps {
		if iptables(ctx, "", "iptables", "-w", "-t", j.table, "-C", j.from, "-j", j.to) == nil {
			continue
		}
		op := "-A"
		if j.first {
			op = "-I"
		}
		if err := iptables(ctx, "", "iptables", "-w", "-t", j.table, op, j.from, "-j", j.to); err != nil {
			return fmt.Errorf("rule in %s: %w", j.from, err)
		}
	}
	return nil
}

// removeFirewall removes our chains and jumps; what is not there is fine.
func removeFirewall(ctx context.Context) error {
	var errs []error
	saved := map[string]string{}
	for _, j := range jumps {
		if _, ok := saved[j.table]; !ok {
			text, err := iptablesOutput(ctx, "", "iptables-save", "-t", j.table)
			if err != nil {
				return fmt.Errorf("read firewall rules: %w", err)
			}
			saved[j.table] = text
		}
		errs = append(errs, iptables(ctx, removal(saved[j.table], j), "iptables-restore", "--noflush", "-w"))
	}
	errs = append(errs, removePortmap(ctx, saved["nat"]))
	return errors.Join(errs...)
}

// removal is the transaction that removes j and its chain from a table saved as text.
func removal(saved string, j jump) string {
	if !strings.Contains(saved, "\n:"+j.to+" ") {
		return ""
	}
	var b strings.Builder
	for line := range strings.Lines(saved) {
		if rule, ok := strings.CutPrefix(line, "-A "+j.from+" "); ok && strings.HasSuffix(strings.TrimSpace(rule), "-j "+j.to) {
			fmt.Fprintf(&b, "-D %s %s", j.from, rule)
		}
	}
	return fmt.Sprintf("*%s\n%s-F %s\n-X %s\nCOMMIT\n", j.table, b.String(), j.to, j.to)
}

// removePortmap removes the chains that the portmap plugin shares between all networks of a
// machine, when no pod is left that uses them. The plugin itself never does.
func removePortmap(ctx context.Context, saved string) error {
	if strings.Contains(saved, "\n-A CNI-DN-") {
		return nil
	}
	var chains, dropped, deleted strings.Builder
	for line := range strings.Lines(saved) {
		switch fields := strings.Fields(line); {
		case len(fields) == 0:
		case strings.HasPrefix(line, ":CNI-HOSTPORT-"), strings.HasPrefix(line, ":CNI-DN-"):
			name := strings.TrimPrefix(fields[0], ":")
			fmt.Fprintf(&chains, "-F %s\n", name)
			fmt.Fprintf(&dropped, "-X %s\n", name)
		case strings.HasPrefix(line, "-A ") && !strings.HasPrefix(line, "-A CNI-") && strings.HasPrefix(fields[len(fields)-1], "CNI-HOSTPORT-"):
			fmt.Fprintf(&deleted, "-D %s", strings.TrimPrefix(line, "-A "))
		}
	}
	if chains.Len() == 0 {
		return nil
	}
	return iptables(ctx, "*nat\n"+deleted.String()+chains.String()+dropped.String()+"COMMIT\n", "iptables-restore", "--noflush", "-w")
}

func iptables(ctx context.Context, stdin string, args ...string) error {
	_, err := iptablesOutput(ctx, stdin, args...)
	return err
}

func iptablesOutput(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("%s is missing: install it with: apt-get install iptables", args[0])
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return out.String(), nil
}
