package cluster

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of /proc/PID/stat's times on every Linux that matters.
const tick = 10 * time.Millisecond

// CPUTime is what a process has used so far, in user and system mode.
func CPUTime(pid int) (time.Duration, error) {
	fields, err := statOf(strconv.Itoa(pid))
	if err != nil {
		return 0, err
	}
	return ticks(fields[11:13])
}

// CPUTime is what all processes of the machine have used so far, those that have ended included:
// whoever collected them has their times.
func (m *Machine) CPUTime() (time.Duration, error) {
	ours, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", m.PID()))
	if err != nil {
		return 0, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		// One that ends meanwhile is with its parent now, or with the one that comes next.
		if in, err := os.Readlink("/proc/" + e.Name() + "/ns/pid"); err != nil || in != ours {
			continue
		}
		fields, err := statOf(e.Name())
		if err != nil {
			continue
		}
		used, err := ticks(fields[11:15])
		if err != nil {
			return 0, err
		}
		sum += used
	}
	return sum, nil
}

// statOf are the fields of /proc/PID/stat behind the name.
func statOf(pid string) ([]string, error) {
	text, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return nil, err
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 15 {
		return nil, fmt.Errorf("process %s: stat says %s", pid, text)
	}
	return fields, nil
}

func ticks(fields []string) (time.Duration, error) {
	var sum time.Duration
	for _, field := range fields {
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, fmt.Errorf("times of a process: %w", err)
		}
		sum += time.Duration(n) * tick
	}
	return sum, nil
}
