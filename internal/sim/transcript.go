package sim

import (
	"fmt"
	"slices"
	"time"
)

const (
	// keptLines is how far back a transcript can look, shownLines how much of it a violation shows.
	keptLines  = 50_000
	shownLines = 40
)

// transcript keeps the latest lines of what happened.
type transcript struct {
	lines []line
	next  int
}

type line struct {
	at   time.Time
	node string // "": it concerns everyone
	text string
}

func (t *transcript) add(at time.Time, node, text string) {
	l := line{at: at, node: node, text: text}
	if len(t.lines) < keptLines {
		t.lines = append(t.lines, l)
		return
	}
	t.lines[t.next] = l
	t.next = (t.next + 1) % keptLines
}

// about is what a reader needs: the latest lines about the nodes, and those about everyone; without nodes, all.
func (t *transcript) about(nodes []string) []string {
	var picked []string
	for i := len(t.lines) - 1; i >= 0 && len(picked) < shownLines; i-- {
		l := &t.lines[(t.next+i)%len(t.lines)]
		if len(nodes) == 0 || l.node == "" || slices.Contains(nodes, l.node) {
			picked = append(picked, l.String())
		}
	}
	for i, j := 0, len(picked)-1; i < j; i, j = i+1, j-1 {
		picked[i], picked[j] = picked[j], picked[i]
	}
	return picked
}

// String is one line: the time since the world began, whom it is about, and what happened.
func (l *line) String() string {
	who := l.node
	if who == "" {
		who = "-"
	}
	return fmt.Sprintf("%12s  %-12s %s", roundedDown(l.at.Sub(epoch)), who, l.text)
}
