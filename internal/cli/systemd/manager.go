package systemd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// UnitDir is where an administrator's units are.
const UnitDir = "/etc/systemd/system"

// poll is how often a start is looked after. systemd tells changes only over D-Bus, which a
// machine need not have.
const poll = 200 * time.Millisecond

// Manager installs services. The zero value is not usable; see New.
type Manager struct {
	unitDir   string
	systemctl string
}

// ErrNoSystemd is returned where systemd does not run the machine.
var ErrNoSystemd = errors.New("this machine is not run by systemd")

// New finds the machine's systemd.
func New() (*Manager, error) {
	// sd_booted(3) says that this is how to tell.
	if info, err := os.Lstat("/run/systemd/system"); err != nil || !info.IsDir() {
		return nil, ErrNoSystemd
	}
	path, err := exec.LookPath("systemctl")
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoSystemd, err)
	}
	return &Manager{unitDir: UnitDir, systemctl: path}, nil
}

func (m *Manager) path(role string) string { return filepath.Join(m.unitDir, Name(role)) }

// Installed returns the service of a role, and false when there is none.
func (m *Manager) Installed(role string) (Service, bool, error) {
	text, err := os.ReadFile(m.path(role))
	if errors.Is(err, fs.ErrNotExist) {
		return Service{}, false, nil
	}
	if err != nil {
		return Service{}, false, err
	}
	s, err := Parse(text)
	if err != nil {
		return Service{}, true, fmt.Errorf("%s: %w; it was changed by hand", m.path(role), err)
	}
	return s, true, nil
}

// Install writes the unit, has it started at every boot, and starts it now: again if it runs and
// the unit has changed or restart is asked for. It returns whether there was anything to do,
// without waiting for the service to be ready.
func (m *Manager) Install(ctx context.Context, s Service, restart bool) (changed bool, err error) {
	text, err := s.Unit()
	if err != nil {
		return false, err
	}
	old, err := os.ReadFile(m.path(s.Role))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if !bytes.Equal(old, text) {
		if err := replace(m.path(s.Role), text); err != nil {
			return false, err
		}
		changed = true
	}
	if err := m.run(ctx, "daemon-reload"); err != nil {
		return false, err
	}
	if err := m.run(ctx, "enable", "--quiet", Name(s.Role)); err != nil {
		return false, err
	}
	verb := "start"
	if changed || restart {
		verb = "restart"
	} else if state, _, err := m.state(ctx, s.Role); err != nil {
		return false, err
	} else if state == "active" {
		return false, nil
	}
	return true, m.run(ctx, verb, "--no-block", Name(s.Role))
}

// replace writes a unit, readable for everybody as units are.
func replace(path string, text []byte) error {
	next := path + ".new"
	if err := os.WriteFile(next, text, 0o644); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// Await waits until a service that was started is ready. The returned error says why it is not
// when ctx ends, or when the service has given up.
func (m *Manager) Await(ctx context.Context, role string) error {
	for {
		state, status, err := m.state(ctx, role)
		switch {
		case err != nil && ctx.Err() == nil:
			return err
		case state == "active":
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is %s%s: %w; it goes on trying, and `journalctl -u %s` says what it does", Name(role), state, status, context.Cause(ctx), Name(role))
		case <-time.After(poll):
		}
	}
}

// state is a unit's ActiveState, and what the service last said of itself.
func (m *Manager) state(ctx context.Context, role string) (state, status string, err error) {
	out, err := m.output(ctx, "show", "--property=ActiveState,StatusText,Result", Name(role))
	if err != nil {
		return "unknown", "", err
	}
	for _, line := range strings.Split(out, "\n") {
		name, value, _ := strings.Cut(line, "=")
		switch {
		case name == "ActiveState":
			state = value
		case value != "" && (name == "StatusText" || name == "Result" && value != "success"):
			status += " (" + value + ")"
		}
	}
	return state, status, nil
}

// Uninstall stops a role's service and removes its unit. It returns whether there was one.
// Containers that an agent started keep running.
func (m *Manager) Uninstall(ctx context.Context, role string) (bool, error) {
	if _, err := os.Lstat(m.path(role)); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err := m.run(ctx, "disable", "--now", "--quiet", Name(role)); err != nil {
		return false, err
	}
	if err := os.Remove(m.path(role)); err != nil {
		return false, err
	}
	_ = m.run(ctx, "reset-failed", Name(role)) // it had not failed, most often
	return true, m.run(ctx, "daemon-reload")
}

func (m *Manager) run(ctx context.Context, args ...string) error {
	_, err := m.output(ctx, args...)
	return err
}

func (m *Manager) output(ctx context.Context, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, m.systemctl, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
