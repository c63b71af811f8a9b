package footprint

import (
	"strings"
	"testing"
)

func TestSettle(t *testing.T) {
	const mib = 1 << 20
	for name, tc := range map[string]struct {
		allocated []uint64
		want      string // of each tick: - nothing, t text, h text and heap
	}{
		"a quiet process keeps the text it uses": {[]uint64{mib, mib, mib}, "ttt"},
		"after work the heap goes back, once":    {[]uint64{30 * mib, 20 * mib, mib, mib}, "--ht"},
		"nothing goes while it works":            {[]uint64{30 * mib, 30 * mib, 9 * mib}, "---"},
		"little by little it is work too":        {[]uint64{8 * mib, 8 * mib, 8 * mib, 8 * mib}, "ttht"},
	} {
		t.Run(name, func(t *testing.T) {
			var s settle
			var got strings.Builder
			for _, n := range tc.allocated {
				switch text, freed := s.next(n); {
				case freed:
					got.WriteByte('h')
				case text:
					got.WriteByte('t')
				default:
					got.WriteByte('-')
				}
			}
			if got.String() != tc.want {
				t.Errorf("%s, want %s", got.String(), tc.want)
			}
		})
	}
}
