package offline

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/atomicfile"
)

const (
	keyFile   = "key"
	keySize   = 32
	extension = ".pod"
	// format is bound into each record's encryption: another one is unreadable, not misread.
	format = "everynode.io/offline-pod/v1 "
)

// Entry is what is remembered of one pod.
type Entry struct {
	// Pod as the API had it, without its status.
	Pod        *corev1.Pod         `json:"pod"`
	ConfigMaps []*corev1.ConfigMap `json:"configMaps,omitempty"`
	Secrets    []*corev1.Secret    `json:"secrets,omitempty"`
}

// Record is a folder of entries. Its methods may be called from any goroutine, for one pod from one
// at a time.
type Record struct {
	dir  string
	aead cipher.AEAD
	// holder names whose record it is.
	holder func() string
}

// Open returns the record in a folder, which nothing else may write to. A key that is missing or
// damaged is made anew; what was written with the old one can then not be read. Nor can what was
// written for another holder, which is the node of one server; "" stands for nobody.
func Open(dir string, holder func() string) (*Record, error) {
	if err := atomicfile.Dir(dir); err != nil {
		return nil, fmt.Errorf("record of pods: %w", err)
	}
	if err := atomicfile.Sweep(dir); err != nil {
		return nil, fmt.Errorf("record of pods: %w", err)
	}
	path := filepath.Join(dir, keyFile)
	key, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("key of the record of pods: %w", err)
	}
	if len(key) != keySize {
		if err == nil {
			klog.Background().Info("The key of the record of pods is damaged; they are remembered anew", "file", path)
		}
		key = make([]byte, keySize)
		_, _ = rand.Read(key) // never fails
		if err := atomicfile.Write(path, key); err != nil {
			return nil, fmt.Errorf("key of the record of pods: %w", err)
		}
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("key of the record of pods: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("key of the record of pods: %w", err)
	}
	return &Record{dir: dir, aead: aead, holder: holder}, nil
}

// Erase removes a record with its key.
func Erase(dir string) error {
	if err := os.Remove(filepath.Join(dir, keyFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("record of pods: %w", err)
	}
	return os.RemoveAll(dir)
}

// path is the file of a pod. UIDs come from the API; one that is no plain name has no file.
func (r *Record) path(uid types.UID) (string, error) {
	if msgs := validation.IsDNS1123Label(string(uid)); len(msgs) > 0 {
		return "", fmt.Errorf("UID %q: %s", uid, strings.Join(msgs, "; "))
	}
	return filepath.Join(r.dir, string(uid)+extension), nil
}

// save writes the text of an entry. It is on disk when save returns.
func (r *Record) save(uid types.UID, text []byte) error {
	path, err := r.path(uid)
	if err != nil {
		return err
	}
	return atomicfile.Write(path, r.aead.Seal(nil, nil, text, r.bound(uid)))
}

// bound is what an entry's encryption is bound to.
func (r *Record) bound(uid types.UID) []byte { return []byte(format + string(uid) + " " + r.holder()) }

// forget removes the entry of a pod, if there is one.
func (r *Record) forget(uid types.UID) error {
	path, err := r.path(uid)
	if err == nil {
		err = os.Remove(path)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// uids are the pods of which there is a file.
func (r *Record) uids() ([]types.UID, error) {
	entries, err := os.ReadDir(r.dir)
	var uids []types.UID
	for _, e := range entries {
		if uid, ok := strings.CutSuffix(e.Name(), extension); ok {
			uids = append(uids, types.UID(uid))
		}
	}
	return uids, err
}

// load reads the entry of a pod.
func (r *Record) load(uid types.UID) (Entry, error) {
	path, err := r.path(uid)
	if err != nil {
		return Entry{}, err
	}
	sealed, err := os.ReadFile(path)
	if err != nil {
		return Entry{}, err
	}
	return r.open(uid, sealed)
}

// open decrypts and checks an entry.
func (r *Record) open(uid types.UID, sealed []byte) (Entry, error) {
	text, err := r.aead.Open(nil, nil, sealed, r.bound(uid))
	if err != nil {
		return Entry{}, errors.New("it is damaged, or was written with another key or for another node")
	}
	return parse(uid, text)
}

// parse reads the text of an entry. What it returns is fit to run.
func parse(uid types.UID, text []byte) (Entry, error) {
	var e Entry
	if err := json.Unmarshal(text, &e); err != nil {
		return Entry{}, err
	}
	switch {
	case e.Pod == nil || e.Pod.UID != uid || e.Pod.Name == "" || e.Pod.Namespace == "" || len(e.Pod.Spec.Containers) == 0:
		return Entry{}, errors.New("it holds no pod of this UID")
	case !Remembered(e.Pod):
		return Entry{}, errors.New("it holds a pod that is not to be remembered")
	}
	for _, cm := range e.ConfigMaps {
		if cm == nil || cm.Namespace != e.Pod.Namespace {
			return Entry{}, errors.New("it holds a ConfigMap of another namespace")
		}
	}
	for _, s := range e.Secrets {
		if s == nil || s.Namespace != e.Pod.Namespace {
			return Entry{}, errors.New("it holds a Secret of another namespace")
		}
	}
	return e, nil
}
