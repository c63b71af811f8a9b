package measure

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Interface is what went through a network interface since it was made.
type Interface struct {
	Name                                 string
	RxBytes, RxErrors, TxBytes, TxErrors uint64
}

// Interfaces are those of the network namespace that the process is in, without the loopback.
func (m *Machine) Interfaces(pid int) ([]Interface, error) {
	file := m.path(fmt.Sprintf("proc/%d/net/dev", pid))
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var list []Interface
	for line := range strings.SplitSeq(string(data), "\n") {
		name, counters, ok := strings.Cut(line, ":")
		fields := strings.Fields(counters)
		if name = strings.TrimSpace(name); !ok || name == "lo" || len(fields) < 16 {
			continue // the two lines of headings have no colon
		}
		i := Interface{Name: name}
		for column, into := range map[int]*uint64{0: &i.RxBytes, 2: &i.RxErrors, 8: &i.TxBytes, 10: &i.TxErrors} {
			if *into, err = strconv.ParseUint(fields[column], 10, 64); err != nil {
				return nil, fmt.Errorf("%s: interface %s: %w", file, name, err)
			}
		}
		list = append(list, i)
	}
	return list, nil
}
