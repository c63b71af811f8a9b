package objects

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

var settings = Ref{Kind: ConfigMap, Namespace: "ns", Name: "settings"}

func data(value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{Data: map[string]string{"k": value}}
}

// podWith references ConfigMaps by name.
func podWith(uid string, configMaps ...string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p" + uid, UID: types.UID(uid)}}
	for _, name := range configMaps {
		v := corev1.Volume{Name: name}
		v.ConfigMap = &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}
		pod.Spec.Volumes = append(pod.Spec.Volumes, v)
	}
	return pod
}

// world runs a test in a bubble with a cache over a fake API.
func world(t *testing.T, run func(t *testing.T, api *fakeAPI, c *Cache)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		api := newFakeAPI()
		c := New(api)
		run(t, api, c)
		c.Close()
		synctest.Wait()
		if n := api.open(); n != 0 {
			t.Errorf("%d watches are still open after Close", n)
		}
	})
}

func value(t *testing.T, c *Cache) string {
	t.Helper()
	cm, err := c.ConfigMap(t.Context(), "ns", "settings")
	if err != nil {
		t.Fatal(err)
	}
	return cm.Data["k"]
}

func TestOneWatchIsSharedAndEndsWithItsLastPod(t *testing.T) {
	world(t, func(t *testing.T, api *fakeAPI, c *Cache) {
		api.put(settings, data("1"))
		c.Register(podWith("a", "settings"))
		c.Register(podWith("b", "settings"))
		c.Register(podWith("b", "settings")) // again: no change
		if got := value(t, c); got != "1" {
			t.Errorf("got %q", got)
		}
		synctest.Wait()
		if n := api.count("watch ConfigMap ns/settings"); n != 1 {
			t.Errorf("%d watches; want one, shared", n)
		}
		c.Unregister(podWith("a"))
		synctest.Wait()
		if api.open() != 1 {
			t.Error("the watch ended while a pod still references the object")
		}
		c.UnregisterUID("b")
		c.UnregisterUID("b")
		synctest.Wait()
		if api.open() != 0 {
			t.Error("the watch outlived the last pod")
		}
	})
}

func TestChangesArriveAndAreToldOf(t *testing.T) {
	world(t, func(t *testing.T, api *fakeAPI, c *Cache) {
		var told []Ref
		cancel := c.Subscribe(func(r Ref) { told = append(told, r) })
		c.Register(podWith("a", "settings"))
		if _, err := c.ConfigMap(t.Context(), "ns", "settings"); !apierrors.IsNotFound(err) {
			t.Fatalf("a missing object gave %v; want NotFound", err)
		}
		synctest.Wait()
		for _, step := range []string{"1", "2"} {
			api.put(settings, data(step))
			synctest.Wait()
			if got := value(t, c); got != step {
				t.Errorf("got %q; want %q", got, step)
			}
		}
		api.remove(settings)
		synctest.Wait()
		if _, err := c.ConfigMap(t.Context(), "ns", "settings"); !apierrors.IsNotFound(err) {
			t.Errorf("a deleted object gave %v; want NotFound", err)
		}
		if want := []Ref{settings, settings, settings, settings}; !cmp.Equal(told, want) {
			t.Errorf("told of %v; want missing, added, changed, deleted", told)
		}
		cancel()
		api.put(settings, data("3"))
		synctest.Wait()
		if len(told) != 4 {
			t.Error("told after cancel")
		}
	})
}

func TestAnAuthorizerThatLagsIsWaitedFor(t *testing.T) {
	world(t, func(t *testing.T, api *fakeAPI, c *Cache) {
		api.put(settings, data("1"))
		start := time.Now()
		api.failWith(func(call string) error {
			if time.Since(start) < 300*time.Millisecond {
				return forbidden(call)
			}
			return nil
		})
		c.Register(podWith("a", "settings"))
		if got := value(t, c); got != "1" {
			t.Errorf("got %q", got)
		}
		if took := time.Since(start); took > 700*time.Millisecond {
			t.Errorf("took %v; the object could be read after 300 ms", took)
		}
	})
}

func TestForbiddenForGoodIsSaidAfterASecond(t *testing.T) {
	world(t, func(t *testing.T, api *fakeAPI, c *Cache) {
		api.failWith(forbidden)
		c.Register(podWith("a", "settings"))
		start := time.Now()
		_, err := c.ConfigMap(t.Context(), "ns", "settings")
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "ConfigMap ns/settings") {
			t.Errorf("error %v; want Forbidden, naming the object", err)
		}
		if took := time.Since(start); took > bindingLag {
			t.Errorf("took %v; want at most %v", took, bindingLag)
		}
		// Once it is allowed, the next caller gets it without waiting out a delay; an attempt may be
		// under way that asks again within 200 ms.
		time.Sleep(30 * time.Second)
		api.put(settings, data("1"))
		api.failWith(nil)
		start = time.Now()
		if got := value(t, c); got != "1" || time.Since(start) > 250*time.Millisecond {
			t.Errorf("got %q after %v", got, time.Since(start))
		}
	})
}

func TestWhatIsKnownStaysWhileTheServerIsAway(t *testing.T) {
	world(t, func(t *testing.T, api *fakeAPI, c *Cache) {
		api.put(settings, data("1"))
		c.Register(podWith("a", "settings"))
		synctest.Wait()
		away := errors.New("connection refused")
		api.failWith(func(string) error { return away })
		api.breakStreams(nil)
		time.Sleep(10 * time.Minute)
		if got := value(t, c); got != "1" {
			t.Errorf("got %q", got)
		}
		if n := api.count("watch ConfigMap ns/settings") + api.count("list ConfigMap ns/settings"); n > 150 {
			t.Errorf("%d requests in 10 minutes without a server; want about one in 10 s", n)
		}
		if _, err := c.ConfigMap(t.Context(), "ns", "other"); !errors.Is(err, away) {
			t.Errorf("an unknown object gave %v; want the reason", err)
		}
		api.put(settings, data("2"))
		api.failWith(nil)
		time.Sleep(16 * time.Second)
		synctest.Wait()
		if got := value(t, c); got != "2" {
			t.Errorf("got %q after the server came back; want 2", got)
		}
	})
}

func TestAnExpiredWatchReadsAnew(t *testing.T) {
	world(t, func(t *testing.T, api *fakeAPI, c *Cache) {
		api.put(settings, data("1"))
		c.Register(podWith("a", "settings"))
		synctest.Wait()
		gone := apierrors.NewResourceExpired("too old").Status()
		api.breakStreams(&watch.Event{Type: watch.Error, Object: &gone})
		api.put(settings, data("2")) // missed by every watch
		time.Sleep(time.Second)
		synctest.Wait()
		if got := value(t, c); got != "2" {
			t.Errorf("got %q; want what was missed", got)
		}
		if n := api.count("list ConfigMap ns/settings"); n != 2 {
			t.Errorf("%d lists; want 2", n)
		}
	})
}

func TestAWatchThatEndsIsResumed(t *testing.T) {
	world(t, func(t *testing.T, api *fakeAPI, c *Cache) {
		api.put(settings, data("1"))
		c.Register(podWith("a", "settings"))
		synctest.Wait()
		time.Sleep(time.Minute)
		api.breakStreams(nil)
		synctest.Wait()
		if n := api.count("list ConfigMap ns/settings"); n != 1 {
			t.Errorf("%d lists; an orderly end needs none", n)
		}
		api.put(settings, data("2"))
		synctest.Wait()
		if got := value(t, c); got != "2" {
			t.Errorf("got %q", got)
		}
	})
}

func TestImmutableObjectsAreNotWatched(t *testing.T) {
	world(t, func(t *testing.T, api *fakeAPI, c *Cache) {
		yes := true
		fixed := data("1")
		fixed.Immutable = &yes
		api.put(settings, fixed)
		c.Register(podWith("a", "settings"))
		synctest.Wait()
		if api.open() != 0 || value(t, c) != "1" {
			t.Error("an immutable object should be read once and not be watched")
		}
		// Replaced: the next pod sees it.
		api.remove(settings)
		api.put(settings, data("2"))
		c.Register(podWith("b", "settings"))
		synctest.Wait()
		if got := value(t, c); got != "2" {
			t.Errorf("got %q", got)
		}
	})
}

func TestAServerThatHangsIsNotWaitedForLong(t *testing.T) {
	world(t, func(t *testing.T, api *fakeAPI, c *Cache) {
		c.items[settings] = newItem(settings) // nobody follows: no answer ever comes
		start := time.Now()
		_, err := c.ConfigMap(t.Context(), "ns", "settings")
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != answerWithin {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		delete(c.items, settings)
	})
}

func TestSecretsAndUnregisteredObjects(t *testing.T) {
	world(t, func(t *testing.T, api *fakeAPI, c *Cache) {
		pull := Ref{Kind: Secret, Namespace: "ns", Name: "pull"}
		api.put(pull, &corev1.Secret{Data: map[string][]byte{"x": []byte("y")}})
		pod := podWith("a")
		pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
		c.Register(pod)
		s, err := c.Secret(t.Context(), "ns", "pull")
		if err != nil || string(s.Data["x"]) != "y" {
			t.Errorf("got %v, %v", s, err)
		}
		api.put(settings, data("1"))
		if got := value(t, c); got != "1" { // not registered: read directly
			t.Errorf("got %q", got)
		}
	})
}

func bound(uid string, seconds int64) *authenticationv1.TokenRequest {
	return &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: "p" + uid, UID: types.UID(uid)},
	}}
}

func TestTokensAreKeptUntilFourFifths(t *testing.T) {
	world(t, func(t *testing.T, api *fakeAPI, c *Cache) {
		c.Register(podWith("a"))
		token := func() string {
			tr, err := c.Token(t.Context(), "ns", "robot", bound("a", 3600))
			if err != nil {
				t.Fatal(err)
			}
			return tr.Status.Token
		}
		first := token()
		time.Sleep(3600 * 74 / 100 * time.Second)
		if token() != first {
			t.Error("renewed before 75 % of its life")
		}
		time.Sleep(3600 * 7 / 100 * time.Second)
		second := token()
		if second == first {
			t.Error("not renewed after 80 % of its life")
		}
		api.failWith(func(string) error { return errors.New("away") })
		time.Sleep(3600 * 90 / 100 * time.Second)
		if token() != second {
			t.Error("a valid token was not used while it could not be renewed")
		}
		time.Sleep(3600 * 11 / 100 * time.Second)
		if _, err := c.Token(t.Context(), "ns", "robot", bound("a", 3600)); err == nil {
			t.Error("an expired token was handed out")
		}
	})
}

func TestTokensAreTheirPodsOwn(t *testing.T) {
	world(t, func(t *testing.T, api *fakeAPI, c *Cache) {
		c.Register(podWith("a"))
		c.Register(podWith("b"))
		tokens := map[string]bool{}
		for _, uid := range []string{"a", "b", "a"} {
			tr, err := c.Token(t.Context(), "ns", "robot", bound(uid, 3600))
			if err != nil {
				t.Fatal(err)
			}
			tokens[tr.Status.Token] = true
		}
		if len(tokens) != 2 {
			t.Errorf("%d tokens for two pods", len(tokens))
		}
		c.UnregisterUID("a")
		if len(c.tokens) != 1 {
			t.Errorf("%d tokens are kept after the pod went; want its own gone", len(c.tokens))
		}
		if _, err := c.Token(t.Context(), "ns", "robot", bound("a", 3600)); err != nil || len(c.tokens) != 1 {
			t.Errorf("%v; %d tokens: a pod that is not registered must leave none behind", err, len(c.tokens))
		}
	})
}

func TestATokenWaitsForItsPodToBeSeen(t *testing.T) {
	world(t, func(t *testing.T, api *fakeAPI, c *Cache) {
		start := time.Now()
		api.failWith(func(string) error {
			if time.Since(start) < 200*time.Millisecond {
				return apierrors.NewNotFound(corev1.Resource("pod"), "pa")
			}
			return nil
		})
		if _, err := c.Token(t.Context(), "ns", "robot", bound("a", 600)); err != nil {
			t.Error(err)
		}
		api.failWith(func(string) error {
			return apierrors.NewNotFound(corev1.Resource("serviceaccounts"), "robot")
		})
		start = time.Now()
		if _, err := c.Token(t.Context(), "ns", "robot", bound("a", 601)); !apierrors.IsNotFound(err) || time.Since(start) > 0 {
			t.Errorf("a missing account gave %v after %v; want NotFound at once", err, time.Since(start))
		}
	})
}

func TestReferences(t *testing.T) {
	name := func(n string) corev1.LocalObjectReference { return corev1.LocalObjectReference{Name: n} }
	pod := podWith("a", "cm-volume")
	pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{name("pull"), {}}
	secret, projected := corev1.Volume{Name: "s"}, corev1.Volume{Name: "p"}
	secret.Secret = &corev1.SecretVolumeSource{SecretName: "secret-volume"}
	projected.Projected = &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: name("cm-projected")}},
		{Secret: &corev1.SecretProjection{LocalObjectReference: name("secret-projected")}},
		{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{}},
	}}
	pod.Spec.Volumes = append(pod.Spec.Volumes, secret, projected)
	pod.Spec.InitContainers = []corev1.Container{{EnvFrom: []corev1.EnvFromSource{
		{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: name("cm-from")}},
		{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: name("secret-from")}},
	}}}
	pod.Spec.Containers = []corev1.Container{{Env: []corev1.EnvVar{
		{Name: "PLAIN", Value: "1"},
		{ValueFrom: &corev1.EnvVarSource{ConfigMapKeyRef: &corev1.ConfigMapKeySelector{LocalObjectReference: name("cm-key")}}},
		{ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: name("pull")}}},
	}}}
	debug := corev1.EphemeralContainer{}
	debug.EnvFrom = []corev1.EnvFromSource{{ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: name("cm-debug")}}}
	pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{debug}

	var got []string
	for _, r := range References(pod) {
		got = append(got, r.String())
	}
	want := []string{
		"Secret ns/pull", "ConfigMap ns/cm-volume", "Secret ns/secret-volume", "ConfigMap ns/cm-projected",
		"Secret ns/secret-projected", "ConfigMap ns/cm-from", "Secret ns/secret-from", "ConfigMap ns/cm-key", "ConfigMap ns/cm-debug",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// TestRecalledObjects stand in until the server has been heard, and no token is asked for meanwhile.
func TestRecalledObjects(t *testing.T) {
	world(t, func(t *testing.T, api *fakeAPI, c *Cache) {
		remembered := data("remembered")
		remembered.Namespace, remembered.Name = "ns", "settings"
		c.Recall([]*corev1.ConfigMap{remembered}, nil)
		api.failWith(func(string) error { return errors.New("connection refused") })
		c.Register(podWith("u1", "settings"))
		got, err := c.ConfigMap(t.Context(), "ns", "settings")
		if err != nil || got.Data["k"] != "remembered" || c.Known(settings) == nil {
			t.Errorf("got %v, %v", got, err)
		}
		tr := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{UID: "u1"}}}
		if _, err := c.Token(t.Context(), "ns", "default", tr); !errors.Is(err, ErrOffline) {
			t.Errorf("a token with no server: %v", err)
		}
		api.failWith(nil)
		c.Heard()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if got, err := c.ConfigMap(t.Context(), "ns", "settings"); !apierrors.IsNotFound(err) {
			t.Errorf("the server does not have it, but got %v, %v", got, err)
		}
		if c.Known(settings) != nil {
			t.Error("what does not exist is known")
		}
	})
}
