package images

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/atomicfile"
)

// Provenance remembers which images this agent has pulled, and who may use them: an image that was
// pulled with a pod's secret is no gift to other pods that happen to know its name. It follows what
// the kubelet does by default (KubeletEnsureSecretPulledImages, policy NeverVerifyPreloadedImages):
//
//   - an image that the agent never pulled came with the machine, and every pod may use it;
//   - one pulled without credentials, every pod may use under that repository's name;
//   - one pulled with a secret, pods may use that have this secret, or the same credentials;
//   - any other pod has to pull it again, and the registry decides.
//
// Each image has a file, and so has each pull while it is under way: after a crash an image is not
// taken for one that came with the machine. Of credentials there are hashes only. A file that cannot
// be read counts as pulled, with credentials unknown. All methods may be called on nil, which allows
// everything, and from any goroutine.
//
// https://kubernetes.io/docs/concepts/containers/images/#ensureimagepullcredentialverification
type Provenance struct {
	dir string
	now func() time.Time

	mu sync.Mutex
	// pulled are the images by the name of their file; one that is in there never changes.
	pulled map[string]*pulledImage
	// pulling are the names of images that are being pulled, with the number of pulls; cutOff those
	// of them that an earlier agent was pulling when it ended, and whether they were looked for.
	pulling map[string]int
	cutOff  map[string]bool
}

// pulledImage is what a file says of one image.
type pulledImage struct {
	// ID is the runtime's.
	ID string `json:"id"`
	// Repositories say who may use the image, by the name it was pulled under, without tag or digest.
	Repositories map[string]*users `json:"repositories"`

	changed time.Time
}

type users struct {
	// All: it was pulled without credentials.
	All     bool    `json:"all,omitempty"`
	Secrets []grant `json:"secrets,omitempty"`
}

// grant is a secret whose credentials the registry has accepted.
type grant struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	// Hash is of the credentials in it that fitted.
	Hash string `json:"hash"`
}

func (g grant) sameSecret(o grant) bool {
	return g.Namespace == o.Namespace && g.Name == o.Name && g.UID == o.UID
}

const (
	pulledExtension  = ".json"
	pullingExtension = ".pulling"
	// maxGrants bounds what is remembered of one repository; who was forgotten asks the registry again.
	maxGrants = 100
)

// OpenProvenance reads what is remembered in a folder, which nothing else may write to.
func OpenProvenance(dir string) (*Provenance, error) {
	p := &Provenance{dir: dir, now: time.Now, pulled: map[string]*pulledImage{}, pulling: map[string]int{}, cutOff: map[string]bool{}}
	if err := errors.Join(atomicfile.Dir(dir), atomicfile.Sweep(dir)); err != nil {
		return nil, fmt.Errorf("record of pulled images: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("record of pulled images: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		text, err := os.ReadFile(path)
		if key, is := strings.CutSuffix(e.Name(), pulledExtension); is {
			image, parseErr := parsePulled(key, text)
			if err := errors.Join(err, parseErr); err != nil {
				klog.Background().Info("What is remembered of a pulled image is unusable; pods that name it have to pull it again", "file", path, "err", err)
			}
			p.pulled[key] = image
		} else if strings.HasSuffix(e.Name(), pullingExtension) && err == nil {
			if name := string(text); pullingFile(name) == e.Name() {
				p.pulling[name], p.cutOff[name] = 1, false
			} else {
				klog.Background().Info("What is remembered of a pull is unusable and forgotten", "file", path)
				_ = os.Remove(path)
			}
		}
	}
	return p, nil
}

// parsePulled reads the file of an image; what is wrong with it is an image with no users.
func parsePulled(key string, text []byte) (*pulledImage, error) {
	image := &pulledImage{}
	err := json.Unmarshal(text, image)
	if err == nil && fileKey(image.ID) != key {
		err = errors.New("it is of another image")
	}
	if err != nil {
		return &pulledImage{Repositories: map[string]*users{}}, err
	}
	maps.DeleteFunc(image.Repositories, func(_ string, u *users) bool { return u == nil })
	if image.Repositories == nil {
		image.Repositories = map[string]*users{}
	}
	return image, nil
}

func fileKey(id string) string {
	hash := sha256.Sum256([]byte(id))
	return hex.EncodeToString(hash[:])
}

func pullingFile(name string) string { return fileKey(name) + pullingExtension }

// repository is an image's name in full, without tag or digest.
func repository(image string) string {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return image
	}
	return named.Name()
}

// Begin is told of a pull before it begins. There is an error if that cannot be remembered.
func (p *Provenance) Begin(image string) error {
	if p == nil {
		return nil
	}
	name, err := fullName(image)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pulling[name] == 0 {
		if err := atomicfile.Write(filepath.Join(p.dir, pullingFile(name)), []byte(name)); err != nil {
			return fmt.Errorf("remember that the image is pulled: %w", err)
		}
	}
	p.pulling[name]++
	return nil
}

// Failed is told that a pull that has begun got nothing.
func (p *Provenance) Failed(image string) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.endLocked(image)
}

// Pulled is told that a pull that has begun got an image, and with which credential; nil: with none.
func (p *Provenance) Pulled(image, id string, with *credential) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.allowLocked(image, id, with); err != nil {
		// The pull stays under way, so that the image is not taken for one of the machine's own.
		klog.Background().Error(err, "Who may use a pulled image is not remembered; pods have to pull it again", "image", image)
		return
	}
	p.endLocked(image)
}

// endLocked ends a pull, and forgets it with the last of this name.
func (p *Provenance) endLocked(image string) {
	name, err := fullName(image)
	if err != nil {
		return
	}
	if p.pulling[name]--; p.pulling[name] > 0 {
		return
	}
	delete(p.pulling, name)
	if err := os.Remove(filepath.Join(p.dir, pullingFile(name))); err != nil && !errors.Is(err, fs.ErrNotExist) {
		klog.Background().Error(err, "A pull that has ended is remembered as under way", "image", image)
		p.pulling[name] = 1
	}
}

// allowLocked remembers that whoever has the credential may use the image.
func (p *Provenance) allowLocked(image, id string, with *credential) error {
	key, repo := fileKey(id), repository(image)
	before := p.pulled[key]
	u := &users{}
	if before != nil && before.Repositories[repo] != nil {
		*u = *before.Repositories[repo]
	}
	switch {
	case before != nil && (u.All || with != nil && slices.Contains(u.Secrets, with.grant())):
		return nil
	case with == nil:
		*u = users{All: true}
	default:
		g := with.grant()
		others := slices.DeleteFunc(slices.Clone(u.Secrets), g.sameSecret)
		u.Secrets = slices.Concat(others[max(0, len(others)+1-maxGrants):], []grant{g})
	}
	after := &pulledImage{ID: id, Repositories: map[string]*users{}}
	if before != nil {
		maps.Copy(after.Repositories, before.Repositories)
	}
	after.Repositories[repo] = u
	return p.saveLocked(key, after)
}

func (p *Provenance) saveLocked(key string, image *pulledImage) error {
	text, err := json.Marshal(image)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(p.dir, key+pulledExtension), text); err != nil {
		return err
	}
	image.changed = p.now()
	p.pulled[key] = image
	return nil
}

// Allows says whether a pod may use the image that the machine has without asking the registry. The
// pod's credentials for it are looked up only if that depends on them.
func (p *Provenance) Allows(image, id string, credentials func() []credential) bool {
	if p == nil {
		return true
	}
	p.mu.Lock()
	record := p.pulled[fileKey(id)]
	name, err := fullName(image)
	pulling := err != nil || p.pulling[name] > 0
	p.mu.Unlock()
	if record == nil {
		return !pulling
	}
	u := record.Repositories[repository(image)]
	if u == nil || u.All || len(u.Secrets) == 0 {
		return u != nil && u.All
	}
	for _, c := range credentials() {
		g := c.grant()
		if !slices.ContainsFunc(u.Secrets, func(o grant) bool { return o.Hash == g.Hash || o.sameSecret(g) }) {
			continue
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		// The same credentials in another secret, or others in the same one: known from now on.
		if err := p.allowLocked(image, id, &c); err != nil {
			klog.Background().Error(err, "Who may use a pulled image is not remembered", "image", image)
		}
		return true
	}
	return false
}

// Reconcile is told which images the runtime had at a time: what it has not is forgotten, and what a
// crash cut off is found out.
func (p *Provenance) Reconcile(images []*runtimeapi.Image, at time.Time) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	has, ids := map[string]bool{}, map[string]string{}
	for _, image := range images {
		has[fileKey(image.Id)] = true
		for _, name := range slices.Concat(image.RepoTags, image.RepoDigests) {
			ids[name] = image.Id
		}
	}
	for key, image := range p.pulled {
		if !has[key] && image.changed.Before(at) {
			p.forgetLocked(key)
		}
	}
	for name := range p.pulling {
		p.settleLocked(name, ids[name])
	}
}

// Forget is told that an image was removed.
func (p *Provenance) Forget(id string) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if key := fileKey(id); p.pulled[key] != nil {
		p.forgetLocked(key)
	}
}

func (p *Provenance) forgetLocked(key string) {
	if err := os.Remove(filepath.Join(p.dir, key+pulledExtension)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		klog.Background().Error(err, "The record of an image that is gone stays", "file", key+pulledExtension)
		return
	}
	delete(p.pulled, key)
}

// settleLocked ends a pull that an earlier agent began. id is what the runtime has under that name.
func (p *Provenance) settleLocked(name, id string) {
	looked, cutOff := p.cutOff[name]
	if !cutOff {
		return
	}
	if id == "" && !looked {
		p.cutOff[name] = true // the runtime may be finishing what it was told to do
		return
	}
	if id != "" && p.pulled[fileKey(id)] == nil {
		if err := p.saveLocked(fileKey(id), &pulledImage{ID: id, Repositories: map[string]*users{}}); err != nil {
			return // it stays as it is, and is looked at again
		}
	}
	delete(p.cutOff, name)
	p.endLocked(name)
}
