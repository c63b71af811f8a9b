package cluster

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"
)

// The clock of a machine cannot be set apart: no namespace has a wall clock of its own. But programs
// read it from a function that the kernel maps into each of them (vdso(7)), and in a process of the
// tests' own this one may take its place.
//
//	mov  $228, %eax        // clock_gettime
//	syscall
//	test %edi, %edi        // CLOCK_REALTIME?
//	jne  end
//	movabs $SECONDS, %rcx
//	add  %rcx, (%rsi)
//	end: ret
var (
	skewedClock = []byte{0xb8, 228, 0, 0, 0, 0x0f, 0x05, 0x85, 0xff, 0x75, 13, 0x48, 0xb9, 0, 0, 0, 0, 0, 0, 0, 0, 0x48, 0x01, 0x0e, 0xc3}
	secondsAt   = bytes.Index(skewedClock, make([]byte, 8))
)

const clockFunction = "__vdso_clock_gettime"

// SetClock sets how far ahead the wall clock of a process is that was started by a machine with a
// Clock.
func (p *Process) SetClock(ahead time.Duration) error {
	code := slices.Clone(skewedClock)
	binary.LittleEndian.PutUint64(code[secondsAt:], uint64(int64(ahead/time.Second)))
	function, err := p.clockFunction()
	if err != nil {
		return err
	}
	memory, err := os.OpenFile(fmt.Sprintf("/proc/%d/mem", p.PID()), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = memory.WriteAt(code, function)
	return errors.Join(err, memory.Close())
}

// clockFunction is where the process has the function that tells the time.
func (p *Process) clockFunction() (int64, error) {
	auxv, err := os.ReadFile(fmt.Sprintf("/proc/%d/auxv", p.PID()))
	if err != nil {
		return 0, err
	}
	const sysinfoEHDR = 33 // getauxval(3)
	var base int64
	for pair := range slices.Chunk(auxv, 16) {
		if binary.LittleEndian.Uint64(pair) == sysinfoEHDR {
			base = int64(binary.LittleEndian.Uint64(pair[8:]))
		}
	}
	memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", p.PID()))
	if err != nil {
		return 0, err
	}
	defer func() { _ = memory.Close() }()
	image := make([]byte, 2*os.Getpagesize())
	if n, err := memory.ReadAt(image, base); n == 0 { // it may have one page only
		return 0, err
	}
	object, err := elf.NewFile(bytes.NewReader(image))
	if err != nil {
		return 0, fmt.Errorf("vdso: %w", err)
	}
	symbols, err := object.DynamicSymbols()
	if err != nil {
		return 0, fmt.Errorf("vdso: %w", err)
	}
	for _, s := range symbols {
		if s.Name == clockFunction && object.Machine == elf.EM_X86_64 && s.Size >= uint64(len(skewedClock)) {
			return base + int64(s.Value), nil
		}
	}
	return 0, fmt.Errorf("vdso: no %s of %v that is large enough to be replaced", clockFunction, elf.EM_X86_64)
}

// release lets a process go that was started to be traced, with its clock set.
func (m *Machine) release(p *Process) error {
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(p.PID(), &status, syscall.WALL, nil); err != nil {
		return fmt.Errorf("wait for its start: %w", err)
	}
	err := p.SetClock(m.Clock)
	m.Do(func() { err = errors.Join(err, syscall.PtraceDetach(p.PID())) })
	return err
}
