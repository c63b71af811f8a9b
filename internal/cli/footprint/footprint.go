// Package footprint keeps the long-running roles small.
//
// One binary holds everything, so before it does any work it has run the initialisation of
// everything, and touched tens of megabytes of its own file that most roles never need again.
// Release gives those pages back to the kernel; Tune sets how eagerly the garbage collector works.
// Both change nothing but memory: a page that is needed after all comes back by a page fault.
package footprint

import (
	"context"
	"debug/elf"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// Tune sets the garbage collector's percentage and soft limit in MiB (0: none), unless the
// environment does with GOGC and GOMEMLIMIT.
func Tune(percent, limitMiB int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
	if os.Getenv("GOMEMLIMIT") == "" && limitMiB > 0 {
		debug.SetMemoryLimit(int64(limitMiB) << 20)
	}
}

// When the pages are dropped: once what starts with the process is done, and again after the
// first requests have pulled their own start-up through.
var releaseAfter = []time.Duration{3 * time.Second, 20 * time.Second}

// Release returns unused memory to the kernel a while after the start, in the background.
func Release(ctx context.Context) {
	go func() {
		for _, delay := range releaseAfter {
			select {
			case <-ctx.Done():
				return
			case <-time.After(delay):
			}
			debug.FreeOSMemory()
			if err := dropText(); err != nil {
				klog.V(1).InfoS("Memory of the program's text is not released", "err", err)
			}
		}
	}()
}

// dropText unmaps the read-only pages of the program's own file. They stay in the page cache and
// are shared with the other roles, so having one back costs a minor fault.
func dropText() error {
	ranges, err := textRanges("/proc/self/exe")
	if err != nil {
		return err
	}
	for _, r := range ranges {
		// The kernel's call takes an address that no Go pointer can stand for.
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, r.start, r.end-r.start, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("madvise: %w", errno)
		}
	}
	return nil
}

type addressRange struct{ start, end uintptr }

// textRanges are the addresses of the program's segments that were never writable. The mappings
// that are read-only now will not do: a dynamic linker writes to some before it seals them, and
// what it wrote would be lost. A program that may lie at any address is left alone.
func textRanges(exe string) ([]addressRange, error) {
	f, err := elf.Open(exe)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if f.Type != elf.ET_EXEC {
		return nil, nil
	}
	page := uint64(os.Getpagesize())
	var ranges []addressRange
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD || p.Flags&elf.PF_W != 0 {
			continue
		}
		// Whole pages only: the last one may be shared with the next segment.
		start, end := (p.Vaddr+page-1)/page*page, (p.Vaddr+p.Filesz)/page*page
		if start < end {
			ranges = append(ranges, addressRange{uintptr(start), uintptr(end)})
		}
	}
	return ranges, nil
}
