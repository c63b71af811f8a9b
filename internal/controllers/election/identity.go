package election

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// identityFile is in the server's data directory.
const identityFile = "election-identity"

var identityPattern = regexp.MustCompile(`^[0-9a-f]{16}$`)

// Identity returns HOSTNAME_ID, by which this server holds the Lease. ID is made once for a data
// directory and kept there, so that a server killed and started again leads at once instead of
// waiting for its own Lease to expire. The host's name is part of it because a data directory may
// be copied to another machine. Two processes must not use one data directory at the same time;
// the server's lock on it sees to that.
func Identity(dataDir string) (string, error) {
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("identity for leader election: %w", err)
	}
	id, err := persistentID(filepath.Join(dataDir, identityFile))
	if err != nil {
		return "", fmt.Errorf("identity for leader election: %w", err)
	}
	return host + "_" + id, nil
}

func persistentID(path string) (string, error) {
	switch data, err := os.ReadFile(path); {
	case err == nil && identityPattern.MatchString(strings.TrimSpace(string(data))):
		return strings.TrimSpace(string(data)), nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	// Missing, or torn by a crash: a new one costs one wait for the old Lease at most.
	b := make([]byte, 8)
	if _, err := rand.Read(b); err != nil {
		return "", err
	}
	id := hex.EncodeToString(b)
	if err := os.WriteFile(path, []byte(id+"\n"), 0o600); err != nil {
		return "", err
	}
	return id, nil
}
