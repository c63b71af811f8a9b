package logs

import (
	"bytes"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// Predecessor is the part of a log that was rotated away last, "" if there is none that is text: what
// the log was before it was begun anew.
func Predecessor(path string) string {
	names, err := parts(path)
	if err != nil {
		return ""
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		_, err := time.Parse(dated, strings.TrimSuffix(strings.TrimPrefix(name, path+"."), compressed))
		return err != nil
	})
	if len(names) == 0 || strings.HasSuffix(slices.Max(names), compressed) {
		return ""
	}
	return slices.Max(names)
}

// Lines counts the lines of a log, up to most.
func Lines(path string, most int64) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	buffer, lines := make([]byte, 32<<10), int64(0)
	for lines < most {
		n, err := f.Read(buffer)
		lines += int64(bytes.Count(buffer[:n], []byte{'\n'}))
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	return min(lines, most), nil
}
