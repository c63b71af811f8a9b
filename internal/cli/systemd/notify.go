package systemd

import (
	"os"

	"github.com/coreos/go-systemd/v22/daemon"
)

const socketVariable = "NOTIFY_SOCKET"

// TakeNotification keeps it to the returned function to tell systemd that the service is ready:
// libraries that do so by themselves (k8s.io/apiserver, when it begins to serve) do it too early.
// Without systemd the function does nothing.
func TakeNotification() (ready func() error) {
	socket, ok := os.LookupEnv(socketVariable)
	if !ok {
		return func() error { return nil }
	}
	_ = os.Unsetenv(socketVariable) // fails for malformed names only
	return func() error {
		if err := os.Setenv(socketVariable, socket); err != nil {
			return err
		}
		_, err := daemon.SdNotify(true, daemon.SdNotifyReady)
		return err
	}
}
