package tokens

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"

	"github.com/everynode/everynode/internal/jointoken"
)

const caHash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

func secretOf(t *testing.T, client kubernetes.Interface, id string) *corev1.Secret {
	t.Helper()
	s, err := client.CoreV1().Secrets("kube-system").Get(context.Background(), "bootstrap-token-"+id, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func create(t *testing.T, client kubernetes.Interface, ttl time.Duration, description string) jointoken.Token {
	t.Helper()
	token, err := Create(context.Background(), client, caHash, ttl, description)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestCreateMakesAStandardBootstrapToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		token := create(t, client, 24*time.Hour, "rack 4")
		s := secretOf(t, client, token.ID)
		if s.Type != bootstrapapi.SecretTypeBootstrapToken {
			t.Errorf("type %s", s.Type)
		}
		for key, want := range map[string]string{
			"token-id": token.ID, "token-secret": token.Secret, "description": "rack 4",
			"usage-bootstrap-authentication": "true", "auth-extra-groups": "system:bootstrappers:everynode",
			"expiration": time.Now().Add(24 * time.Hour).UTC().Format(time.RFC3339),
		} {
			if got := string(s.Data[key]); got != want {
				t.Errorf("%s is %q, want %q", key, got, want)
			}
		}
		if _, signs := s.Data["usage-bootstrap-signing"]; signs {
			t.Error("the token may sign")
		}
		if !regexp.MustCompile(bootstrapapi.BootstrapTokenPattern).MatchString(token.Bearer()) {
			t.Errorf("upstream does not take %s", token.Bearer())
		}
	})
}

func TestCreateRefusesTokensWithoutALife(t *testing.T) {
	for _, ttl := range []time.Duration{0, -time.Hour, time.Millisecond} {
		if _, err := Create(context.Background(), fake.NewClientset(), caHash, ttl, ""); err == nil {
			t.Errorf("made one for %v", ttl)
		}
	}
}

func TestListShowsWhatIsValidAndNoSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset(&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "bootstrap-token-kubead"}, Type: bootstrapapi.SecretTypeBootstrapToken,
			Data: map[string][]byte{"token-id": []byte("kubead"), "usage-bootstrap-authentication": []byte("true"), "auth-extra-groups": []byte("system:bootstrappers:other")},
		})
		late := create(t, client, 48*time.Hour, "late")
		soon := create(t, client, time.Hour, "soon")
		create(t, client, time.Minute, "over")
		never := create(t, client, time.Hour, "never")
		s := secretOf(t, client, never.ID)
		delete(s.Data, "expiration")
		if _, err := client.CoreV1().Secrets("kube-system").Update(t.Context(), s, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)

		infos, err := List(t.Context(), client)
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, info := range infos {
			ids = append(ids, info.ID+" "+info.Description)
		}
		want := []string{soon.ID + " soon", late.ID + " late", never.ID + " never"}
		if strings.Join(ids, ",") != strings.Join(want, ",") {
			t.Errorf("got %q, want %q", ids, want)
		}
	})
}

func TestRevoke(t *testing.T) {
	ctx, client := context.Background(), fake.NewClientset()
	byID, byToken := create(t, client, time.Hour, ""), create(t, client, time.Hour, "")
	for _, what := range []string{byID.ID, byToken.String() + "\n"} {
		if err := Revoke(ctx, client, what); err != nil {
			t.Error(err)
		}
	}
	if infos, _ := List(ctx, client); len(infos) != 0 {
		t.Errorf("still there: %v", infos)
	}
	for what, want := range map[string]string{byID.ID: "none with id " + byID.ID, "nonsense": "want its id", "": "want its id"} {
		if err := Revoke(ctx, client, what); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", what, err, want)
		}
	}
}

// keeping runs Keep in a synctest bubble and returns how to stop it.
func keeping(t *testing.T, f *File) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Keep(ctx) }()
	synctest.Wait()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func newFile(t *testing.T, client kubernetes.Interface) *File {
	t.Helper()
	return &File{Client: client, Path: filepath.Join(t.TempDir(), "join-token"), CAHash: caHash}
}

// token reads the file, and checks that what it holds is valid.
func (f *File) token(t *testing.T) jointoken.Token {
	t.Helper()
	data, err := os.ReadFile(f.Path)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jointoken.Parse(string(data))
	if err != nil {
		t.Fatal(err)
	}
	if e := expiry(secretOf(t, f.Client, token.ID)); !e.After(time.Now()) {
		t.Errorf("the token in the file expired at %v", e)
	}
	return token
}

func TestKeepMakesOneTokenAndKeepsItOverRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFile(t, fake.NewClientset())
		stop := keeping(t, f)
		first := f.token(t)
		if fi, _ := os.Stat(f.Path); fi.Mode().Perm() != 0o600 {
			t.Errorf("mode %v", fi.Mode())
		}
		time.Sleep(time.Hour)
		stop()
		stop = keeping(t, f)
		defer stop()
		if f.token(t) != first {
			t.Error("a restart made another token")
		}
		if infos, _ := List(t.Context(), f.Client); len(infos) != 1 {
			t.Errorf("%d tokens", len(infos))
		}
	})
}

// TestKeepRenewsInTime looks every hour for a week: the file's token is always valid for some hours more, and the
// one before it until it ends by itself.
func TestKeepRenewsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFile(t, fake.NewClientset())
		defer keeping(t, f)()
		seen := map[string]bool{}
		for range 7 * 24 {
			token := f.token(t)
			if left := time.Until(expiry(secretOf(t, f.Client, token.ID))); left < 7*time.Hour {
				t.Fatalf("only %v left", left)
			}
			seen[token.ID] = true
			time.Sleep(time.Hour)
		}
		if len(seen) < 10 || len(seen) > 12 {
			t.Errorf("%d tokens in a week", len(seen))
		}
		if infos, _ := List(t.Context(), f.Client); len(infos) > 2 {
			t.Errorf("%d tokens are valid", len(infos))
		}
		if secrets, _ := list(t.Context(), f.Client); len(secrets) > 2 {
			t.Errorf("expired tokens stay: %d", len(secrets))
		}
	})
}

func TestARevokedTokenStaysAwayUntilTheNextStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFile(t, fake.NewClientset())
		stop := keeping(t, f)
		first := f.token(t)
		if err := Revoke(t.Context(), f.Client, first.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * 24 * time.Hour)
		if _, err := os.Stat(f.Path); !errors.Is(err, os.ErrNotExist) {
			t.Error("the file is there")
		}
		if infos, _ := List(t.Context(), f.Client); len(infos) != 0 {
			t.Errorf("tokens came back: %v", infos)
		}
		stop()
		defer keeping(t, f)()
		if second := f.token(t); second.ID == first.ID || second.Secret == first.Secret {
			t.Error("the revoked token is back")
		}
	})
}

// TestRevokedWhileDown differs from the last: nobody saw it happen.
func TestRevokedWhileDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFile(t, fake.NewClientset())
		keeping(t, f)()
		first := f.token(t)
		if err := Revoke(t.Context(), f.Client, first.ID); err != nil {
			t.Fatal(err)
		}
		defer keeping(t, f)()
		if f.token(t).Secret == first.Secret {
			t.Error("the revoked token is back")
		}
	})
}

func TestKeepReplacesWhatIsNotItsToken(t *testing.T) {
	for name, content := range map[string]string{
		"cut off":              "EN1." + caHash[:20],
		"empty":                "",
		"of a CA that is gone": strings.Replace(jointoken.Token{CAHash: caHash, ID: "abc123", Secret: "0123456789abcdef"}.String(), "9f86", "0000", 1),
		"never heard of":       jointoken.Token{CAHash: caHash, ID: "abc123", Secret: "0123456789abcdef"}.String(),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFile(t, fake.NewClientset())
				if err := os.WriteFile(f.Path, []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
				defer keeping(t, f)()
				f.token(t)
				if fi, _ := os.Stat(f.Path); fi.Mode().Perm() != 0o600 {
					t.Errorf("mode %v", fi.Mode())
				}
			})
		})
	}
}

func TestAWrongSecretDoesNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFile(t, fake.NewClientset())
		token := create(t, f.Client, 24*time.Hour, "")
		forged := token
		forged.Secret = "0000000000000000"
		if err := os.WriteFile(f.Path, []byte(forged.String()), 0o600); err != nil {
			t.Fatal(err)
		}
		defer keeping(t, f)()
		if f.token(t).ID == token.ID {
			t.Error("the file's token does not work, and was left there")
		}
	})
}

func TestARemovedFileIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFile(t, fake.NewClientset())
		defer keeping(t, f)()
		if err := os.Remove(f.Path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * checkEvery)
		f.token(t)
	})
}

func TestKeepOutlastsAnAPIThatIsDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, down := fake.NewClientset(), true
		client.PrependReactor("*", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
			return down, nil, errors.New("connection refused")
		})
		f := newFile(t, client)
		defer keeping(t, f)()
		time.Sleep(10 * time.Minute)
		if _, err := os.Stat(f.Path); err == nil {
			t.Fatal("a token came from nowhere")
		}
		down = false
		time.Sleep(2 * checkEvery)
		first := f.token(t)
		down = true // an API that is down has revoked nothing
		time.Sleep(time.Hour)
		down = false
		if f.token(t) != first {
			t.Error("another token")
		}
	})
}

func TestATokenThatCannotBeWrittenDownIsRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFile(t, fake.NewClientset())
		f.Path = filepath.Join(f.Path, "missing", "join-token")
		defer keeping(t, f)()
		if infos, _ := List(t.Context(), f.Client); len(infos) != 0 {
			t.Errorf("%d tokens that nobody knows", len(infos))
		}
	})
}

func TestFileValidate(t *testing.T) {
	client := fake.NewClientset()
	for i, f := range []File{{}, {Client: client}, {Client: client, Path: "x"}, {Client: client, Path: "x", CAHash: caHash, TTL: -1}} {
		if f.Validate() == nil {
			t.Errorf("%d: valid", i)
		}
		if f.Keep(context.Background()) == nil {
			t.Errorf("%d: kept", i)
		}
	}
}
