package systemd

import (
	"net"
	"path/filepath"
	"testing"

	"github.com/coreos/go-systemd/v22/daemon"
)

func TestTakeNotification(t *testing.T) {
	address := &net.UnixAddr{Name: filepath.Join(t.TempDir(), "notify"), Net: "unixgram"}
	socket, err := net.ListenUnixgram("unixgram", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = socket.Close() }()
	t.Setenv("NOTIFY_SOCKET", address.Name)
	ready := TakeNotification()
	if sent, err := daemon.SdNotify(false, daemon.SdNotifyReady); sent || err != nil {
		t.Errorf("a library can still notify: %v %v", sent, err)
	}
	if err := ready(); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 64)
	n, err := socket.Read(buffer)
	if err != nil || string(buffer[:n]) != "READY=1" {
		t.Errorf("systemd hears %q, %v", buffer[:n], err)
	}
}
