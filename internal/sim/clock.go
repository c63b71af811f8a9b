package sim

import "time"

// epoch is when every world begins.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// clock is virtual time: a queue of events, each at its time, those of one time in the order they were planned.
type clock struct {
	now     time.Time
	planned uint64
	queue   []event
	handled int
}

type event struct {
	at  time.Time
	seq uint64
	do  func()
}

func (e *event) before(o *event) bool {
	return e.at.Before(o.at) || (e.at.Equal(o.at) && e.seq < o.seq)
}

// in plans f for later.
func (c *clock) in(d time.Duration, f func()) { c.at(c.now.Add(d), f) }

// at plans f for a time; one that has passed means now.
func (c *clock) at(t time.Time, f func()) {
	if t.Before(c.now) {
		t = c.now
	}
	c.planned++
	c.queue = append(c.queue, event{at: t, seq: c.planned, do: f})
	i := len(c.queue) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if !c.queue[i].before(&c.queue[parent]) {
			break
		}
		c.queue[i], c.queue[parent] = c.queue[parent], c.queue[i]
		i = parent
	}
}

// next moves time to the next event and runs it. It returns false when there is none.
func (c *clock) next() bool {
	if len(c.queue) == 0 {
		return false
	}
	e := c.queue[0]
	last := len(c.queue) - 1
	c.queue[0] = c.queue[last]
	c.queue[last] = event{}
	c.queue = c.queue[:last]
	c.sink()
	c.now = e.at
	c.handled++
	e.do()
	return true
}

func (c *clock) sink() {
	for i := 0; ; {
		least := 2*i + 1
		if least >= len(c.queue) {
			return
		}
		if right := least + 1; right < len(c.queue) && c.queue[right].before(&c.queue[least]) {
			least = right
		}
		if !c.queue[least].before(&c.queue[i]) {
			return
		}
		c.queue[i], c.queue[least] = c.queue[least], c.queue[i]
		i = least
	}
}
