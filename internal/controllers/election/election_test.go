package election

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"
)

func newClient(objects ...runtime.Object) *fake.Clientset {
	objects = append(objects, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: LeaseNamespace}})
	return fake.NewClientset(objects...)
}

// heldBy is a Lease as another process left it just now.
func heldBy(identity string) *coordinationv1.Lease {
	now := metav1.NewMicroTime(time.Now())
	return &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: LeaseNamespace, Name: LeaseName},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: &identity, LeaseDurationSeconds: ptr.To(int32(15)),
			AcquireTime: &now, RenewTime: &now, LeaseTransitions: ptr.To(int32(3)),
		},
	}
}

func holder(t *testing.T, c *fake.Clientset) string {
	t.Helper()
	lease, err := c.CoordinationV1().Leases(LeaseNamespace).Get(context.Background(), LeaseName, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return ptr.Deref(lease.Spec.HolderIdentity, "")
}

// leads returns led work which reports when it starts, and lasts as long as its context.
func leads(started chan<- time.Time) func(context.Context) error {
	return func(ctx context.Context) error {
		started <- time.Now()
		<-ctx.Done()
		return nil
	}
}

func TestLeadsAtOnce(t *testing.T) {
	for name, client := range map[string]func() *fake.Clientset{
		"first start":                 func() *fake.Clientset { return newClient() },
		"restart of a killed server":  func() *fake.Clientset { return newClient(heldBy("host_1")) },
		"restart of a stopped server": func() *fake.Clientset { return newClient(heldBy("")) },
		"the lease has long since run out": func() *fake.Clientset {
			l := heldBy("other")
			l.Spec.LeaseDurationSeconds = ptr.To(int32(0))
			return newClient(l)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				started := make(chan time.Time, 1)
				began := time.Now()
				go func() { _ = Run(ctx, client(), "host_1", leads(started)) }()
				if d := (<-started).Sub(began); d > 10*time.Millisecond {
					t.Errorf("led after %v, want at once", d)
				}
				stop()
				synctest.Wait()
			})
		})
	}
}

func TestWaitsForAnotherLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		started := make(chan time.Time, 1)
		began := time.Now()
		go func() { _ = Run(ctx, newClient(heldBy("other_2")), "host_1", leads(started)) }()
		d := (<-started).Sub(began)
		if d < LeaseDuration || d > LeaseDuration+3*RetryPeriod {
			t.Errorf("led after %v, want soon after the other's lease of %v ran out", d, LeaseDuration)
		}
		stop()
		synctest.Wait()
	})
}

func TestNamespaceAppearsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		client := fake.NewClientset()
		started := make(chan time.Time, 1)
		began := time.Now()
		go func() { _ = Run(ctx, client, "host_1", leads(started)) }()
		time.Sleep(50 * time.Millisecond)
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: LeaseNamespace}}
		if _, err := client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		if d := (<-started).Sub(began); d > 200*time.Millisecond {
			t.Errorf("led after %v, want soon after the namespace appeared at 50ms", d)
		}
		stop()
		synctest.Wait()
	})
}

// The Lease may be given up only when nothing that it guards is running any more.
func TestReleasesAfterTheWorkHasStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		client := newClient()
		leading, returned := make(chan struct{}), make(chan error, 1)
		var whileStopping string
		go func() {
			returned <- Run(ctx, client, "host_1", func(ctx context.Context) error {
				close(leading)
				<-ctx.Done()
				time.Sleep(time.Second)
				whileStopping = holder(t, client)
				return ctx.Err()
			})
		}()
		<-leading
		stop()
		if err := <-returned; err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
		if whileStopping != "host_1" {
			t.Errorf("the holder was %q while the work was stopping, want host_1", whileStopping)
		}
		if h := holder(t, client); h != "" {
			t.Errorf("the holder is %q after the end, want none", h)
		}
	})
}

func TestStopsWhileCampaigning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		client := newClient(heldBy("other_2"))
		returned := make(chan error, 1)
		go func() { returned <- Run(ctx, client, "host_1", func(context.Context) error { panic("must not lead") }) }()
		time.Sleep(3 * time.Second)
		stop()
		began := time.Now()
		if err := <-returned; err != nil {
			t.Errorf("Run returned %v, want nil", err)
		}
		if d := time.Since(began); d > time.Second {
			t.Errorf("stopped after %v", d)
		}
		if h := holder(t, client); h != "other_2" {
			t.Errorf("the holder is %q, want the other one untouched", h)
		}
	})
}

// A leader that cannot renew stops before anyone else may lead, and leads again when it can.
func TestLosesTheLease(t *testing.T) {
	for name, broken := range map[string]func(context.Context) error{
		"the server refuses":       func(context.Context) error { return errors.New("etcd is read-only") },
		"the server hangs":         func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		"the server hangs forever": func(context.Context) error { time.Sleep(11 * time.Second); return errors.New("timeout") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				client := newClient()
				var outage atomic.Bool
				client.PrependReactor("*", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
					if !outage.Load() {
						return false, nil, nil
					}
					call, cancel := context.WithTimeout(context.Background(), 2*time.Second)
					defer cancel()
					return true, nil, broken(call)
				})
				terms, ends := make(chan time.Time, 9), make(chan time.Time, 9)
				go func() {
					_ = Run(ctx, client, "host_1", func(ctx context.Context) error {
						terms <- time.Now()
						<-ctx.Done()
						ends <- time.Now()
						return nil
					})
				}()
				<-terms
				time.Sleep(time.Minute)
				outage.Store(true)
				lost := time.Now()
				if d := (<-ends).Sub(lost); d > LeaseDuration {
					t.Errorf("led for %v after the last renewal, longer than the lease of %v", d, LeaseDuration)
				}
				outage.Store(false)
				healed := time.Now()
				if d := (<-terms).Sub(healed); d > LeaseDuration+2*maxBackoff {
					t.Errorf("led again only %v after the outage", d)
				}
				stop()
				synctest.Wait()
			})
		})
	}
}

func TestOnlyOneOfTwoLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := newClient()
		var leading, most atomic.Int32
		work := func(ctx context.Context) error {
			if n := leading.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer leading.Add(-1)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(40 * time.Second):
				return errors.New("planted failure")
			}
		}
		ctx, stop := context.WithCancel(t.Context())
		for _, id := range []string{"a_1", "b_2"} {
			go func() { _ = Run(ctx, client, id, work) }()
		}
		for range 30 {
			time.Sleep(10 * time.Second)
			if leading.Load() > 1 {
				t.Fatal("two servers lead")
			}
		}
		if most.Load() != 1 {
			t.Errorf("at most %d led at a time, want 1", most.Load())
		}
		stop()
		synctest.Wait()
	})
}

func TestFailedWorkStartsAnewWithBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var starts []time.Time
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = Run(ctx, newClient(), "host_1", func(context.Context) error {
				starts = append(starts, time.Now())
				if len(starts) == 8 {
					stop()
				}
				if len(starts)%2 == 0 {
					return nil // returning by itself is a failure too
				}
				return errors.New("planted failure")
			})
		}()
		<-done
		if len(starts) != 8 {
			t.Fatalf("work started %d times, want 8", len(starts))
		}
		for i := 1; i < len(starts); i++ {
			want := min(minBackoff<<(i-1), maxBackoff)
			if d := starts[i].Sub(starts[i-1]); d < want || d > want+RetryPeriod*2 {
				t.Errorf("start %d came after %v, want about %v", i, d, want)
			}
		}
	})
}

func TestRefusesUnusableArguments(t *testing.T) {
	if err := Run(t.Context(), newClient(), "", func(context.Context) error { return nil }); err == nil {
		t.Error("no error for an empty identity")
	}
}

func TestIdentity(t *testing.T) {
	dir := t.TempDir()
	first, err := Identity(dir)
	if err != nil {
		t.Fatal(err)
	}
	host, _ := os.Hostname()
	if !strings.HasPrefix(first, host+"_") || len(first) != len(host)+17 {
		t.Errorf("identity %q, want HOSTNAME_16 hex digits", first)
	}
	again, err := Identity(dir)
	if err != nil || again != first {
		t.Errorf("second call: %q, %v; want %q again", again, err, first)
	}
	other, err := Identity(t.TempDir())
	if err != nil || other == first {
		t.Errorf("another data directory: %q, %v; want a different identity", other, err)
	}
	if err := os.WriteFile(filepath.Join(dir, identityFile), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if healed, err := Identity(dir); err != nil || healed == first || !identityPattern.MatchString(healed[len(host)+1:]) {
		t.Errorf("after a torn write: %q, %v; want a new identity", healed, err)
	}
	if _, err := Identity(filepath.Join(dir, "missing")); err == nil {
		t.Error("no error for a missing data directory")
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestFence(t *testing.T) {
	term, end := context.WithCancel(context.Background())
	sent := 0
	plain := &rest.Config{Host: "http://192.0.2.1", Transport: roundTripper(func(*http.Request) (*http.Response, error) {
		sent++
		return &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody}, nil
	})}
	client, err := rest.HTTPClientFor(Fence(term, plain))
	if err != nil {
		t.Fatal(err)
	}
	get := func() error {
		resp, err := client.Get(plain.Host)
		if err == nil {
			err = resp.Body.Close()
		}
		return err
	}
	if err := get(); err != nil || sent != 1 {
		t.Fatalf("during the term: %v, %d requests sent; want one", err, sent)
	}
	end()
	if err := get(); !errors.Is(err, ErrDeposed) || sent != 1 {
		t.Errorf("after the term: %v, %d requests sent; want %v and none sent", err, sent-1, ErrDeposed)
	}
	if plain.WrapTransport != nil {
		t.Error("the given configuration was changed")
	}
}
