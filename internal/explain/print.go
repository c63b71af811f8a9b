package explain

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// Format is how a report is printed.
type Format string

// The formats.
const (
	Table Format = "table"
	Wide  Format = "wide"
	JSON  Format = "json"
)

// Validate says which formats there are.
func (f Format) Validate() error {
	switch f {
	case Table, Wide, JSON:
		return nil
	}
	return fmt.Errorf("--output %q: want table, wide or json", string(f))
}

// PrintJSON prints any report.
func PrintJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// Print writes the summary, then a line a node; wide adds the pods.
func (r *Report) Print(w io.Writer, f Format) error {
	if f == JSON {
		return PrintJSON(w, r)
	}
	p := &printer{w: w}
	p.line("%s: %s", r.DaemonSet, r.Summary)
	p.remarks(r.Never, r.Warnings, r.Notes)
	if len(r.Nodes) == 0 {
		return p.err
	}
	p.line("")
	header := "NODE\tSTATE\tWHY"
	if f == Wide {
		header = "NODE\tSTATE\tPOD\tREVISION\tREADY\tRESTARTS\tWHY"
	}
	p.table(header, len(r.Nodes), func(i int) string {
		n := &r.Nodes[i]
		cells := []string{n.Node, string(n.State)}
		if f == Wide {
			cells = append(cells, n.podCells()...)
		}
		return strings.Join(append(cells, strings.Join(n.Why, "; ")), "\t")
	})
	return p.err
}

// podCells are the columns of the node's pods; several are separated by commas.
func (n *NodeReport) podCells() []string {
	if len(n.Pods) == 0 {
		return []string{"-", "-", "-", "-"}
	}
	var names, revisions, ready, again []string
	for _, p := range n.Pods {
		names, revisions = append(names, p.Name), append(revisions, orUnknown(p.Revision))
		word := "no"
		switch {
		case p.Terminating:
			word = "going"
		case p.Available:
			word = "yes"
		}
		ready, again = append(ready, word), append(again, fmt.Sprint(n.restarts[p.Name]))
	}
	return []string{strings.Join(names, ","), strings.Join(revisions, ","), strings.Join(ready, ","), strings.Join(again, ",")}
}

// Print writes the summary, the waves, then a line a node; wide says which nodes each wave has.
func (p *Plan) Print(w io.Writer, f Format) error {
	if f == JSON {
		return PrintJSON(w, p)
	}
	out := &printer{w: w}
	out.line("%s: %s", p.DaemonSet, p.Summary)
	out.remarks(p.Never, p.Warnings, p.Notes)
	if p.Stuck != "" {
		out.line("  %s", p.Stuck)
	}
	if len(p.Waves) > 0 {
		out.line("")
		p.printWaves(out, f)
	}
	if len(p.Nodes) == 0 {
		return out.err
	}
	out.line("")
	out.table("NODE\tACTION\tWAVE\tWHY", len(p.Nodes), func(i int) string {
		n := &p.Nodes[i]
		wave := "-"
		if n.Wave > 0 {
			wave = fmt.Sprint(n.Wave)
		}
		return strings.Join([]string{n.Node, string(n.Action), wave, strings.Join(n.Why, "; ")}, "\t")
	})
	return out.err
}

// mostNames bounds how many nodes of a wave a narrow table names, and mostWaves how many waves it shows.
const (
	mostNames = 5
	mostWaves = 10
)

func (p *Plan) printWaves(out *printer, f Format) {
	shown := p.Waves
	if f != Wide && len(shown) > mostWaves {
		shown = shown[:mostWaves]
	}
	for _, w := range shown {
		names := w.Nodes
		if f != Wide && len(names) > mostNames {
			names = append(names[:mostNames:mostNames], "…")
		}
		out.line("wave %d: %s: %s", w.Number, w.what(), strings.Join(names, " "))
	}
	if n := len(p.Waves) - len(shown); n > 0 {
		out.line("… and %d more (-o wide shows all)", n)
	}
}

func (w *Wave) what() string {
	var parts []string
	for _, x := range []struct {
		n    int
		word string
	}{{w.Creates, "create"}, {w.Updates, "update"}, {w.Deletes, "delete"}} {
		if x.n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", x.word, x.n))
		}
	}
	return strings.Join(parts, ", ")
}

// printer remembers the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, format+"\n", args...)
	}
}

func (p *printer) remarks(never string, warnings, notes []string) {
	if never != "" {
		p.line("  %s", never)
	}
	for _, s := range warnings {
		p.line("  warning: %s", s)
	}
	for _, s := range notes {
		p.line("  note: %s", s)
	}
}

func (p *printer) table(header string, rows int, row func(int) string) {
	if p.err != nil {
		return
	}
	t := tabwriter.NewWriter(p.w, 0, 8, 3, ' ', 0)
	_, _ = fmt.Fprintln(t, header)
	for i := range rows {
		_, _ = fmt.Fprintln(t, strings.TrimRight(row(i), "\t"))
	}
	p.err = t.Flush()
}
