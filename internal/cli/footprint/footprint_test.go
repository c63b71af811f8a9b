package footprint

import (
	"debug/elf"
	"os"
	"testing"
)

// A range that overlaps anything writable would take back what was written there.
func TestOnlyNeverWritableSegmentsAreDropped(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ranges, err := textRanges(exe)
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(exe)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Type == elf.ET_EXEC && len(ranges) == 0 {
		t.Error("nothing of the program would be dropped")
	}
	for _, s := range f.Sections {
		if s.Flags&elf.SHF_WRITE == 0 || s.Flags&elf.SHF_ALLOC == 0 {
			continue
		}
		for _, r := range ranges {
			if uint64(r.start) < s.Addr+s.Size && s.Addr < uint64(r.end) {
				t.Errorf("%x-%x overlaps the writable section %s", r.start, r.end, s.Name)
			}
		}
	}
	if err := dropText(); err != nil {
		t.Error(err)
	}
}
