// Package main measures our DaemonSet controller and upstream's side by side, and prints a markdown table. From
// the repository's root: make bench-upstream.
//
// Each controller runs on each number of nodes in a process of its own, one after the other, on the same API in
// memory: one DaemonSet, a pod on every node. What is counted is the CPU time of that whole process: the
// controller, client-go's informers and the API. The API answers at once and starts every pod at once; it binds
// those that are not created bound without charging a scheduler for it.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"
)

// result is what one process measured.
type result struct {
	Nodes         int           `json:"nodes"`
	Rollout       time.Duration `json:"rollout"` // wall
	RolloutPerPod time.Duration `json:"rolloutPerPod"`
	StatusWrites  int           `json:"statusWrites"`
	Flip          time.Duration `json:"flip"`
	Idle          time.Duration `json:"idle"`
	FlipAtOnce    time.Duration `json:"flipAtOnce"`
	Join          time.Duration `json:"join"`
	JoinCreated   time.Duration `json:"joinCreated"`
	BytesPerNode  int           `json:"bytesPerNode"`
	Failed        string        `json:"failed,omitempty"`
}

// column is one process to run.
type column struct {
	who   string
	nodes int
}

func main() {
	upstreamSizes := flag.String("upstream", "1000,5000", "numbers of nodes for upstream's controller")
	ourSizes := flag.String("ours", "1000,20000,100000", "numbers of nodes for ours")
	timeout := flag.Duration("timeout", 10*time.Minute, "limit of one measurement")
	events := flag.Int("events", 60, "readiness flips, and joining nodes, to average over")
	one := flag.String("measure", "", "measure one controller (upstream, ours) in this process and print JSON")
	nodes := flag.Int("nodes", 0, "number of nodes for -measure")
	idle := flag.Bool("idle", false, "with -measure: no DaemonSet, memory only")
	profile := flag.String("cpuprofile", "", "with -measure: write a CPU profile to this file")
	flag.Parse()

	if *one != "" {
		stop := startProfile(*profile)
		r := measure(*one, *nodes, *events, *idle)
		stop()
		if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
			fail(err)
		}
		return
	}
	var columns []column
	for _, x := range []struct{ who, sizes string }{{"upstream", *upstreamSizes}, {"ours", *ourSizes}} {
		for _, size := range strings.Split(x.sizes, ",") {
			n, err := strconv.Atoi(size)
			if err != nil || n < 1 {
				fail(fmt.Errorf("-%s: %q is not a number of nodes: want for example 1000,5000", x.who, size))
			}
			columns = append(columns, column{x.who, n})
		}
	}
	var results, idles []result
	for _, c := range columns {
		idles = append(idles, inProcess(c, *timeout, "-idle"))
		results = append(results, inProcess(c, *timeout, "-events", strconv.Itoa(*events)))
	}
	printTable(columns, results, idles)
}

// startProfile writes a CPU profile until stop is called; without a file's name it does nothing.
func startProfile(name string) (stop func()) {
	if name == "" {
		return func() {}
	}
	f, err := os.Create(name)
	must(err)
	must(pprof.StartCPUProfile(f))
	return func() {
		pprof.StopCPUProfile()
		must(f.Close())
	}
}

// inProcess measures in a new process, so that neither memory nor CPU is another's.
func inProcess(c column, timeout time.Duration, more ...string) result {
	fmt.Fprintf(os.Stderr, "bench: %s, %d nodes\n", c.who, c.nodes)
	cmd := exec.Command(os.Args[0], append([]string{"-measure", c.who, "-nodes", strconv.Itoa(c.nodes)}, more...)...)
	cmd.Stderr = os.Stderr
	timer := time.AfterFunc(timeout, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	out, err := cmd.Output()
	var r result
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	if err != nil {
		r.Failed = fmt.Sprintf("not in %v", timeout)
		fmt.Fprintf(os.Stderr, "bench: %s, %d nodes: %v\n", c.who, c.nodes, err)
	}
	return r
}

func printTable(columns []column, results, idles []result) {
	row := func(what string, cell func(int, result) string) {
		cells := []string{what}
		for i, r := range results {
			if r.Failed != "" {
				cells = append(cells, r.Failed)
			} else {
				cells = append(cells, cell(i, r))
			}
		}
		fmt.Println("| " + strings.Join(cells, " | ") + " |")
	}
	names := map[string]string{"upstream": "upstream", "ours": "everynode"}
	head, rule := []string{"one DaemonSet on"}, []string{"---"}
	for _, c := range columns {
		head = append(head, fmt.Sprintf("%s, %s nodes", names[c.who], thousands(c.nodes)))
		rule = append(rule, "---:")
	}
	fmt.Println("| " + strings.Join(head, " | ") + " |")
	fmt.Println("|" + strings.Join(rule, "|") + "|")
	ms := func(d time.Duration) string { return fmt.Sprintf("%.3g ms", float64(d.Microseconds())/1000) }
	row("a pod turns (not) ready, until the status says so: CPU", func(_ int, r result) string { return ms(r.Flip) })
	row("of it, what the same rests cost without any event: CPU", func(_ int, r result) string { return ms(r.Idle) })
	row("1,000 pods turn unready at once: CPU per pod", func(_ int, r result) string { return ms(r.FlipAtOnce) })
	row("nodes join one after another, each until its pod is created: CPU per node", func(_ int, r result) string { return ms(r.JoinCreated) })
	row("a node joins, until the status counts its pod ready: CPU", func(_ int, r result) string { return ms(r.Join) })
	row("first rollout: CPU per pod", func(_ int, r result) string { return ms(r.RolloutPerPod) })
	row("first rollout: time", func(_ int, r result) string { return fmt.Sprintf("%.3g s", r.Rollout.Seconds()) })
	row("first rollout: status writes", func(_ int, r result) string { return strconv.Itoa(r.StatusWrites) })
	row("memory per node and DaemonSet, pods' cache included", func(i int, r result) string {
		return thousands(r.BytesPerNode-idles[i].BytesPerNode) + " B"
	})
	row("memory per node besides, without a DaemonSet", func(i int, _ result) string { return thousands(idles[i].BytesPerNode) + " B" })
}

// thousands writes 100000 as 100,000.
func thousands(n int) string {
	if n < 0 {
		return "-" + thousands(-n)
	}
	if n < 1000 {
		return strconv.Itoa(n)
	}
	return fmt.Sprintf("%s,%03d", thousands(n/1000), n%1000)
}

func fail(err error) {
	fmt.Fprintf(os.Stderr, "bench: %v\n", err)
	os.Exit(1)
}
