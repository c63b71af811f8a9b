package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// bootSystemd prepares a machine for a systemd of its own and becomes it.
//
// The machine shares its files with the real one, whose systemd units would clean /tmp, set
// clocks and worse: so this systemd sees none of them, only the few targets written here.
// It also makes the tmpfs of /sys/fs/cgroup read-only, so it gets one of its own. Its cgroups lie
// below the machine's, where the end of the machine removes them.
const bootSystemd = `set -e
for dir in /usr/local/bin /etc/systemd /usr/lib/systemd/system /lib/systemd/system /usr/lib/systemd/system-generators \
  /usr/lib/tmpfiles.d /usr/lib/sysctl.d /usr/lib/udev/rules.d /etc/tmpfiles.d /etc/sysctl.d; do
	[ ! -d $dir ] || mount -t tmpfs -o mode=755 none $dir
done
mkdir -p /etc/systemd/system /run/systemd/system
for target in sysinit basic network-online multi-user shutdown; do
	echo "[Unit]
DefaultDependencies=no" >/lib/systemd/system/$target.target
done
echo "[Unit]
Wants=basic.target
After=basic.target" >/lib/systemd/system/multi-user.target
if [ "$(stat -f -c %T /sys/fs/cgroup)" = tmpfs ]; then
	mkdir /run/cgroups && mount -t tmpfs none /run/cgroups
	for hierarchy in /sys/fs/cgroup/*/; do
		name=$(basename $hierarchy)
		mkdir /run/cgroups/$name && mount --bind $hierarchy /run/cgroups/$name
	done
	mount --rbind /run/cgroups /sys/fs/cgroup
fi
for hierarchy in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
	if [ -e $hierarchy/cgroup.procs ]; then
		mkdir -p $hierarchy/$1/systemd && echo $$ >$hierarchy/$1/systemd/cgroup.procs
	fi
done
export container=everynode
exec unshare --pid --fork --kill-child --mount --propagation shared --mount-proc \
	/lib/systemd/systemd --system --unit=multi-user.target --log-target=console --show-status=no
`

// Systemd is a systemd that runs in a machine.
type Systemd struct {
	machine *Machine
	pid     string
}

// BootSystemd starts systemd in the machine, with no unit but those that are installed later, and
// waits until it takes orders. /usr/local/bin becomes the machine's own.
func (m *Machine) BootSystemd() *Systemd {
	m.t.Helper()
	p := m.Start("systemd", "sh", "-c", bootSystemd, "sh", "everynode-"+m.Name)
	s := &Systemd{machine: m}
	Await(m.t, "systemd runs", 30*time.Second, func(ctx context.Context) error {
		select {
		case <-p.Done():
			return Fatal(errors.New("systemd ended"))
		default:
		}
		children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", p.PID()))
		if err != nil {
			return err
		}
		s.pid = strings.TrimSpace(string(children))
		if _, err := strconv.Atoi(s.pid); err != nil {
			return fmt.Errorf("no systemd yet: children of %d: %q", p.PID(), s.pid)
		}
		r, err := s.Run(ctx, "systemctl", "is-system-running")
		if err == nil && strings.TrimSpace(r.Stdout) != "running" {
			err = fmt.Errorf("systemd is %s%s", r.Stdout, r.Stderr)
		}
		return err
	})
	return s
}

// startLogind runs the machine's own message bus and login manager. What poweroff.target does is run
// a command, once all services have stopped: nothing here may end the real machine.
const startLogind = `set -e
cd /etc/systemd/system
cat >dbus.socket <<X
[Unit]
DefaultDependencies=no
[Socket]
ListenStream=/run/dbus/system_bus_socket
X
cat >dbus.service <<X
[Unit]
DefaultDependencies=no
Requires=dbus.socket
[Service]
Type=notify
NotifyAccess=main
ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation --nosyslog
X
cat >systemd-logind.service <<X
[Unit]
DefaultDependencies=no
Wants=dbus.socket
After=dbus.socket
[Service]
BusName=org.freedesktop.login1
ExecStart=/lib/systemd/systemd-logind
RuntimeDirectory=systemd/sessions systemd/seats systemd/users systemd/inhibit systemd/shutdown
RuntimeDirectoryPreserve=yes
X
cat >../logind.conf <<X
[Login]
NAutoVTs=0
ReserveVT=0
RemoveIPC=no
HandlePowerKey=ignore
X
cat >poweroff.target <<X
[Unit]
DefaultDependencies=no
Requires=shutdown.target poweroff.service
After=shutdown.target
X
cat >poweroff.service <<X
[Unit]
DefaultDependencies=no
After=shutdown.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c '$1'
X
systemctl daemon-reload
systemctl start systemd-logind.service
`

// StartLogind starts a login manager, which carries out what systemctl is told about the machine;
// where it would be switched off a shell command runs instead.
func (s *Systemd) StartLogind(poweroff string) {
	s.machine.t.Helper()
	ctx, cancel := context.WithTimeout(s.machine.t.Context(), time.Minute)
	defer cancel()
	if r, err := s.Run(ctx, "sh", "-c", startLogind, "sh", poweroff); err != nil || r.Code != 0 {
		s.machine.t.Fatalf("start a login manager: %v, code %d: %s%s", err, r.Code, r.Stdout, r.Stderr)
	}
}

// Run runs a command as a user of this systemd's machine would.
func (s *Systemd) Run(ctx context.Context, argv ...string) (Result, error) {
	return s.machine.Run(ctx, append([]string{"nsenter", "--mount", "--pid", "--target", s.inner()}, argv...)...)
}

// inner is systemd's process id as the machine sees it.
func (s *Systemd) inner() string {
	status, err := os.ReadFile("/proc/" + s.pid + "/status")
	if err != nil {
		return s.pid
	}
	for _, line := range strings.Split(string(status), "\n") {
		if ids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			if fields := strings.Fields(ids); len(fields) > 1 {
				return fields[len(fields)-2]
			}
		}
	}
	return s.pid
}
