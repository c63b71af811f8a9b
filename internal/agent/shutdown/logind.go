package shutdown

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
)

// The login manager on the bus: https://www.freedesktop.org/software/systemd/man/latest/org.freedesktop.login1.html
const (
	loginService   = "org.freedesktop.login1"
	loginPath      = dbus.ObjectPath("/org/freedesktop/login1")
	loginInterface = "org.freedesktop.login1.Manager"
)

// overrideFile lets shutdowns wait for longer than the login manager's own limit, which is 5 s.
const overrideFile = "/etc/systemd/logind.conf.d/99-everynode.conf"

// reloadPatience is how long the login manager may take to read its configuration anew.
const reloadPatience = 3 * time.Second

// bus is a login manager on a message bus.
type bus struct {
	conn *dbus.Conn
	// override is where its configuration may be extended.
	override string
}

// SystemBus finds the login manager of this machine; nil if it has none.
func SystemBus() (Logind, error) { return systemBus(overrideFile) }

func systemBus(override string) (Logind, error) {
	conn, err := dbus.ConnectSystemBus()
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, nil // no bus
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the system bus: %w", err)
	}
	var owned bool
	if err := conn.BusObject().Call("org.freedesktop.DBus.NameHasOwner", 0, loginService).Store(&owned); err != nil || !owned {
		return nil, errors.Join(err, conn.Close())
	}
	return &bus{conn: conn, override: override}, nil
}

// Close ends the connection, and with it what it inhibits.
func (b *bus) Close() { _ = b.conn.Close() }

func (b *bus) login() dbus.BusObject { return b.conn.Object(loginService, loginPath) }

// Inhibit takes a lock of the kind that delays shutdowns.
func (b *bus) Inhibit(atMost time.Duration) (release func(), err error) {
	if err := b.allow(atMost); err != nil {
		return nil, err
	}
	var fd dbus.UnixFD
	if err := b.login().Call(loginInterface+".Inhibit", 0, "shutdown", "everynode", "pods have to stop first", "delay").Store(&fd); err != nil {
		return nil, fmt.Errorf("ask the login manager to delay shutdowns: %w", err)
	}
	return func() { _ = syscall.Close(int(fd)) }, nil
}

// allow raises the time for which the login manager lets itself be delayed, if that is less.
func (b *bus) allow(atMost time.Duration) error {
	allowed, err := b.allowed()
	if err != nil || allowed >= atMost {
		return err
	}
	text := fmt.Sprintf("# Written by everynode, whose pods may take this long to stop.\n[Login]\nInhibitDelayMaxSec=%.0f\n", atMost.Seconds())
	if err := os.MkdirAll(filepath.Dir(b.override), 0o755); err != nil {
		return fmt.Errorf("let shutdowns wait for %v: %w", atMost, err)
	}
	if err := os.WriteFile(b.override, []byte(text), 0o644); err != nil {
		return fmt.Errorf("let shutdowns wait for %v: %w", atMost, err)
	}
	if err := hangUp(b.conn); err != nil {
		return fmt.Errorf("have the login manager read %s: %w", b.override, err)
	}
	for deadline := time.Now().Add(reloadPatience); ; time.Sleep(100 * time.Millisecond) {
		if allowed, err = b.allowed(); err != nil || allowed >= atMost {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the login manager lets shutdowns wait for %v, and %v are asked for: it does not follow %s; restart it (systemctl restart systemd-logind), or ask for less", allowed, atMost, b.override)
		}
	}
}

func (b *bus) allowed() (time.Duration, error) {
	v, err := b.login().GetProperty(loginInterface + ".InhibitDelayMaxUSec")
	if err != nil {
		return 0, fmt.Errorf("ask the login manager how long shutdowns wait: %w", err)
	}
	usec, ok := v.Value().(uint64)
	if !ok {
		return 0, fmt.Errorf("the login manager says %v where a number of microseconds is expected", v)
	}
	return time.Duration(usec) * time.Microsecond, nil
}

// hangUp sends the login manager the signal at which it reads its configuration.
func hangUp(conn *dbus.Conn) error {
	return conn.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1").
		Call("org.freedesktop.systemd1.Manager.KillUnit", 0, "systemd-logind.service", "all", int32(syscall.SIGHUP)).Err
}

// Shutdowns follows the signal that comes before a shutdown.
func (b *bus) Shutdowns() (<-chan bool, error) {
	err := b.conn.AddMatchSignal(dbus.WithMatchInterface(loginInterface), dbus.WithMatchMember("PrepareForShutdown"), dbus.WithMatchObjectPath(loginPath))
	if err != nil {
		return nil, fmt.Errorf("follow the login manager's announcements: %w", err)
	}
	signals, shutdowns := make(chan *dbus.Signal, 8), make(chan bool, 8)
	b.conn.Signal(signals)
	go func() {
		defer close(shutdowns)
		for s := range signals {
			if s == nil || len(s.Body) == 0 {
				continue
			}
			if down, ok := s.Body[0].(bool); ok {
				shutdowns <- down
			}
		}
	}()
	return shutdowns, nil
}
