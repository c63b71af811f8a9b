package pods

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/everynode/everynode/internal/decide/podlife"
)

// Limits of termination messages, as the kubelet's.
const (
	maxMessage      = 4096
	maxLogTail      = 2048
	maxLogTailLines = 80
)

// podLogDir is LogDir/NS_NAME_UID.
func (m *Manager) podLogDir(namespace, name string, uid types.UID) string {
	return filepath.Join(m.o.LogDir, namespace+"_"+name+"_"+string(uid))
}

// logPath is a container's log within the pod's log folder.
func logPath(container string, attempt uint32) string {
	return filepath.Join(container, strconv.FormatUint(uint64(attempt), 10)+".log")
}

// logLink is where log shippers look for a container's log.
func (m *Manager) logLink(pod *corev1.Pod, container, id string) string {
	return filepath.Join(m.o.LogLinkDir, fmt.Sprintf("%s_%s_%s-%s.log", pod.Name, pod.Namespace, container, id))
}

func (m *Manager) linkLog(pod *corev1.Pod, container string, attempt uint32, id string) error {
	if err := os.MkdirAll(m.o.LogLinkDir, 0o755); err != nil {
		return err
	}
	err := os.Symlink(filepath.Join(m.podLogDir(pod.Namespace, pod.Name, pod.UID), logPath(container, attempt)), m.logLink(pod, container, id))
	if os.IsExist(err) {
		return nil
	}
	return err
}

// removeLog removes a container's log, rotated parts included, and its link.
func (m *Manager) removeLog(pod *corev1.Pod, c podlife.Container) {
	_ = os.Remove(m.logLink(pod, c.Name, c.ID))
	path := filepath.Join(m.podLogDir(pod.Namespace, pod.Name, pod.UID), logPath(c.Name, c.Attempt))
	parts, _ := filepath.Glob(escapeGlob(path) + "*")
	for _, p := range parts {
		_ = os.Remove(p)
	}
}

// removeLogs removes all logs and links of a pod that is gone.
func (m *Manager) removeLogs(uid types.UID) error {
	dirs, _ := filepath.Glob(filepath.Join(m.o.LogDir, "*_"+escapeGlob(string(uid))))
	var errs []error
	for _, dir := range dirs {
		m.removeLinks(dir)
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// removeLinks removes the links to the logs in a pod's folder.
func (m *Manager) removeLinks(dir string) {
	parts := strings.Split(filepath.Base(dir), "_") // NAMESPACE_NAME_UID
	if len(parts) != 3 {
		return
	}
	links, _ := filepath.Glob(filepath.Join(m.o.LogLinkDir, escapeGlob(parts[1]+"_"+parts[0]+"_")+"*.log"))
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && strings.HasPrefix(target, dir+"/") {
			_ = os.Remove(link)
		}
	}
}

func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// terminationMessage reads what an ended container left in its message file, or,
// where its policy says so, the end of its log.
func terminationMessage(s *runtimeapi.ContainerStatus) string {
	text := ""
	if path := s.Annotations[messagePathAnnotation]; path != "" {
		for _, mount := range s.Mounts {
			if mount.ContainerPath == path {
				text = tail(mount.HostPath, maxMessage)
			}
		}
	}
	fallback := s.Annotations[messagePolicyAnnotation] == string(corev1.TerminationMessageFallbackToLogsOnError)
	if text == "" && fallback && s.ExitCode != 0 && s.Reason != "StartError" {
		text = lastLines(tail(s.LogPath, 2*maxLogTail))
	}
	return text
}

// tail is at most the last n bytes of a file; empty if there is none.
func tail(path string, n int64) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return ""
	} else if info.Size() > n {
		if _, err := f.Seek(-n, io.SeekEnd); err != nil {
			return ""
		}
	}
	b, err := io.ReadAll(io.LimitReader(f, n))
	if err != nil {
		return ""
	}
	return strings.ToValidUTF8(string(b), "\uFFFD")
}

// lastLines strips the CRI's prefix (time, stream, tag) from the end of a log.
func lastLines(log string) string {
	lines := strings.Split(strings.TrimRight(log, "\n"), "\n")
	if len(lines) > maxLogTailLines {
		lines = lines[len(lines)-maxLogTailLines:]
	}
	var out bytes.Buffer
	for _, line := range lines {
		fields := strings.SplitN(line, " ", 4)
		if len(fields) < 4 {
			continue // cut off in the middle
		}
		out.WriteString(fields[3])
		if fields[2] != "P" {
			out.WriteByte('\n')
		}
	}
	text := out.String()
	if len(text) > maxLogTail {
		text = text[len(text)-maxLogTail:]
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}
