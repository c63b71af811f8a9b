package images

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/everynode/everynode/internal/agent/cri/fake"
)

// tenants is a node that two tenants share: its images, and the registry's one password.
type tenants struct {
	t       *testing.T
	store   *fake.Images
	dir     string
	secrets secrets
	record  *Provenance
	puller  *Puller
}

func newTenants(t *testing.T) *tenants {
	n := &tenants{t: t, store: fake.NewImages("here/preloaded:1"), dir: filepath.Join(t.TempDir(), "pulled"), secrets: secrets{}}
	n.store.Publish("r.example/team/app:1", "r.example/team/app:2")
	n.store.RequireLogin("me", "right")
	for name, password := range map[string]string{"mine": "right", "copy": "right", "wrong": "guess"} {
		n.secret(name, password)
	}
	n.restart()
	return n
}

func (n *tenants) secret(name, password string) {
	s := dockerSecret(corev1.SecretTypeDockerConfigJson, "r.example", "me", password)
	s.Namespace, s.Name, s.UID = "ns", name, types.UID("uid-"+name)
	n.secrets[name] = s
}

// restart is a new agent after a kill.
func (n *tenants) restart() {
	n.t.Helper()
	var err error
	if n.record, err = OpenProvenance(n.dir); err != nil {
		n.t.Fatal(err)
	}
	n.puller = newPuller(n.t, Options{Images: n.store, Secrets: n.secrets, Provenance: n.record})
}

// get asks for an image with a secret, "" for none, and says what came of it.
func (n *tenants) get(image string, policy corev1.PullPolicy, secret string) string {
	n.t.Helper()
	pod := &corev1.Pod{}
	pod.Namespace = "ns"
	if secret != "" {
		pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: secret}}
	}
	before, _ := n.store.Pulls()
	_, err := n.puller.Ensure(n.t.Context(), pod, &corev1.Container{Image: image, ImagePullPolicy: policy}, nil, quiet)
	after, _ := n.store.Pulls()
	var fail *Error
	switch {
	case errors.As(err, &fail):
		return fail.Reason
	case err != nil:
		n.t.Error(err)
		return err.Error()
	case len(after) > len(before):
		return "pulled"
	}
	return "present"
}

func (n *tenants) expect(image string, policy corev1.PullPolicy, secret, want string) {
	n.t.Helper()
	if got := n.get(image, policy, secret); got != want {
		n.t.Errorf("%s, %s, secret %q: %s, want %s", image, policy, secret, got, want)
	}
}

// files are those of the record, all of them closed to others and without a password.
func (n *tenants) files() (names []string) {
	n.t.Helper()
	entries, err := os.ReadDir(n.dir)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, e := range entries {
		info, infoErr := e.Info()
		text, err := os.ReadFile(filepath.Join(n.dir, e.Name()))
		if err := errors.Join(err, infoErr); err != nil || info.Mode().Perm() != 0o600 || strings.Contains(string(text), "right") {
			n.t.Errorf("%s: %v, mode %v: %s", e.Name(), err, info.Mode(), text)
		}
		names = append(names, filepath.Ext(e.Name()))
	}
	return names
}

const (
	app   = "r.example/team/app:1"
	never = corev1.PullNever
	maybe = corev1.PullIfNotPresent
)

// An image that was pulled with a secret is had by those who have it, and by nobody else.
func TestACachedPrivateImageIsNoGift(t *testing.T) {
	n := newTenants(t)
	n.expect("here/preloaded:1", maybe, "", "present")
	n.expect(app, maybe, "", ErrImagePull)
	n.expect(app, maybe, "mine", "pulled")
	for range 2 { // before and after a restart
		n.expect(app, maybe, "mine", "present")
		n.expect(app, never, "mine", "present")
		n.expect(app, maybe, "", ErrImagePull)
		n.expect(app, never, "", ErrImageNeverPull)
		n.expect(app, maybe, "wrong", ErrImagePull)
		n.expect(app, never, "wrong", ErrImageNeverPull)
		n.expect(app, never, "copy", "present") // the same credentials
		n.expect("here/preloaded:1", never, "wrong", "present")
		n.restart()
	}
	n.secret("mine", "changed since")
	n.expect(app, never, "mine", "present") // the registry has accepted this secret
	if got := n.files(); !cmp.Equal(got, []string{pulledExtension}) {
		t.Errorf("files %v", got)
	}
	n.store.RequireLogin("", "") // it becomes public: whoever asks for it next finds out
	n.expect(app, never, "", ErrImageNeverPull)
	n.expect(app, maybe, "", "pulled")
	n.expect(app, never, "", "present")
}

// A kill during a pull leaves an image that nobody has shown credentials for.
func TestAKillDuringAPull(t *testing.T) {
	for name, c := range map[string]struct {
		pulled bool // before the kill
		want   string
	}{"before the image was there": {false, "pulled"}, "after it was there": {true, "pulled"}} {
		t.Run(name, func(t *testing.T) {
			n := newTenants(t)
			if err := n.record.Begin(app); err != nil {
				t.Fatal(err)
			}
			image := &runtimeapi.Image{Id: "sha256:" + app, RepoTags: []string{app, "r.example/other:1"}}
			if c.pulled {
				n.store.Add(app, image)
				n.store.Add("r.example/other:1", image)
			}
			n.restart()
			n.expect(app, maybe, "", ErrImagePull)
			list, _ := n.store.ListImages(t.Context(), nil)
			for range 2 {
				n.record.Reconcile(list, time.Now())
			}
			n.expect(app, maybe, "", ErrImagePull)
			if c.pulled {
				n.expect("r.example/other:1", never, "", ErrImageNeverPull)
			}
			n.expect(app, maybe, "mine", c.want)
			n.expect(app, never, "mine", "present")
			if got := n.files(); !cmp.Equal(got, []string{pulledExtension}) {
				t.Errorf("files %v", got)
			}
		})
	}
}

// What cannot be read keeps the agent from nothing, and gives nothing away.
func TestASpoiltRecordGivesNothingAway(t *testing.T) {
	for name, text := range map[string]string{"empty": "", "garbage": "\x00\xff", "cut off": `{"id":"sha256:` + app, "null": "null", "another image": `{"id":"x","repositories":{"r.example/team/app":{"all":true}}}`, "no users": `{"id":"sha256:` + app + `","repositories":{"r.example/team/app":null}}`} {
		t.Run(name, func(t *testing.T) {
			n := newTenants(t)
			n.expect(app, maybe, "mine", "pulled")
			path := filepath.Join(n.dir, fileKey("sha256:"+app)+pulledExtension)
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(n.dir, "x"+pullingExtension), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			n.restart()
			n.expect(app, never, "", ErrImageNeverPull)
			n.expect(app, maybe, "mine", "pulled")
			n.expect(app, never, "mine", "present")
			if got := n.files(); !cmp.Equal(got, []string{pulledExtension}) {
				t.Errorf("files %v", got)
			}
		})
	}
}

// The record goes with the image, whoever removes it; one pulled since the runtime was asked stays.
func TestTheRecordGoesWithTheImage(t *testing.T) {
	n := newTenants(t)
	n.expect(app, maybe, "mine", "pulled")
	n.record.Reconcile(nil, time.Now().Add(-time.Minute))
	n.expect(app, never, "mine", "present")
	c := newCellar(t)
	c.o.Provenance, c.o.Images = n.record, n.store
	collector, err := NewCollector(c.o)
	if err != nil {
		t.Fatal(err)
	}
	for _, later := range []time.Duration{0, time.Hour} { // what was seen a while ago may go
		collector.now = func() time.Time { return time.Now().Add(later) }
		if err := collector.DeleteUnused(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := n.files(); len(got) != 0 {
		t.Errorf("after the collection: files %v", got)
	}
	n.expect(app, maybe, "mine", "pulled")
	if err := n.store.RemoveImage(context.Background(), &runtimeapi.ImageSpec{Image: app}); err != nil {
		t.Fatal(err)
	}
	n.record.Reconcile(nil, time.Now().Add(time.Minute))
	if got := n.files(); len(got) != 0 {
		t.Errorf("after somebody else removed it: files %v", got)
	}
}

// A pull that cannot be remembered is not made.
func TestAPullIsRememberedFirst(t *testing.T) {
	n := newTenants(t)
	if err := os.RemoveAll(n.dir); err != nil {
		t.Fatal(err)
	}
	n.expect(app, maybe, "mine", ErrImagePull)
	if pulls, _ := n.store.Pulls(); len(pulls) != 0 {
		t.Errorf("pulled %v", pulls)
	}
	if _, err := os.Stat(n.dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// Many secrets for one image are remembered up to a bound.
func TestGrantsAreBounded(t *testing.T) {
	n := newTenants(t)
	for i := range maxGrants + 10 {
		s := dockerSecret(corev1.SecretTypeDockercfg, "r.example", "me", strings.Repeat("x", i+1))
		s.UID = types.UID(strings.Repeat("u", i+1))
		auths, err := parseSecret(s)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.record.Begin(app); err != nil {
			t.Fatal(err)
		}
		n.record.Pulled(app, "id", &auths[0].credential)
	}
	grants := n.record.pulled[fileKey("id")].Repositories["r.example/team/app"].Secrets
	if len(grants) != maxGrants || len(grants[maxGrants-1].UID) != maxGrants+10 {
		t.Errorf("%d grants, the last %v", len(grants), grants[len(grants)-1])
	}
}

// FuzzPulled: whatever a file holds, it gives nobody more than it says of this image.
func FuzzPulled(f *testing.F) {
	f.Add([]byte(`{"id":"i","repositories":{"r.example/a":{"all":true,"secrets":[{"namespace":"n"}]},"x":null}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, text []byte) {
		image, err := parsePulled(fileKey("i"), text)
		if err == nil && image.ID != "i" || err != nil && len(image.Repositories) > 0 {
			t.Errorf("%+v, %v", image, err)
		}
		p := &Provenance{dir: t.TempDir(), now: time.Now, pulled: map[string]*pulledImage{fileKey("i"): image}}
		p.Allows("r.example/a:1", "i", func() []credential { return nil })
	})
}

// FuzzImported: a record of archives is read or refused.
func FuzzImported(f *testing.F) {
	f.Add([]byte(`{"a.tar":{"size":1,"modified":"2026-01-01T00:00:00Z","images":["a:1"]}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, ".imported"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		if known, err := readImported(dir); err != nil && known != nil {
			t.Errorf("%v of what cannot be read: %v", known, err)
		}
		if got := Preloaded(dir); len(got) > 0 {
			t.Errorf("images %v of archives that are not there", got)
		}
	})
}
