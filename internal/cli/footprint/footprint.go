// Package footprint keeps the long-running roles small.
//
// One binary holds everything, so before it does any work it has run the initialisation of
// everything, and touched tens of megabytes of its own file that most roles never need again.
// Release gives those pages back to the kernel; Tune sets how eagerly the garbage collector works.
// Both change nothing but memory: a page that is needed after all comes back by a page fault.
package footprint

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
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
	ranges, err := textRanges("/proc/self/maps", "/proc/self/exe")
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

// textRanges are the mappings of the program's file that nothing can have written to.
func textRanges(maps, exe string) ([]addressRange, error) {
	program, err := os.Readlink(exe)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(maps)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var ranges []addressRange
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.SplitN(lines.Text(), " ", 6)
		if len(fields) < 6 || strings.TrimSpace(fields[5]) != program || strings.Contains(fields[1], "w") || !strings.HasPrefix(fields[1], "r") {
			continue
		}
		var r addressRange
		if _, err := fmt.Sscanf(fields[0], "%x-%x", &r.start, &r.end); err != nil {
			return nil, fmt.Errorf("%s: %q: %w", maps, lines.Text(), err)
		}
		ranges = append(ranges, r)
	}
	return ranges, nil
}
