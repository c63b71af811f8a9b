package controllers

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// server is a fake that serves pods and DaemonSets, and nothing else.
func server() *fake.Clientset {
	c := fake.NewClientset(
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p", ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "m"}}}})
	c.Resources = []*metav1.APIResourceList{
		{GroupVersion: "v1", APIResources: []metav1.APIResource{{Name: "pods", Kind: "Pod"}}},
		{GroupVersion: "apps/v1", APIResources: []metav1.APIResource{{Name: "daemonsets", Kind: "DaemonSet"}}},
	}
	return c
}

func TestAbsentKindsAreEmptyAndSynced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := server()
		term, end := context.WithCancel(t.Context())
		shared := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(trim))
		f, err := share(term, term, shared, client.Discovery())
		if err != nil {
			t.Fatal(err)
		}
		statefulSets := f.Apps().V1().StatefulSets()
		claims := f.Resource().V1().ResourceClaims().Informer()
		pods := f.Core().V1().Pods()
		added := 0
		handle, err := statefulSets.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(any) { added++ }})
		if err != nil {
			t.Fatal(err)
		}
		_ = pods.Informer()
		f.Start(nil)
		f.Start(nil) // may be called again
		for kind, ok := range f.WaitForCacheSync(term.Done()) {
			if !ok {
				t.Errorf("%s is not synced", kind)
			}
		}
		synctest.Wait()
		if !statefulSets.Informer().HasSynced() || !claims.HasSynced() || !handle.HasSynced() || added != 0 {
			t.Errorf("an absent kind: synced %v, %v, handler %v, %d objects", statefulSets.Informer().HasSynced(), claims.HasSynced(), handle.HasSynced(), added)
		}
		if p, err := pods.Lister().Pods("a").Get("p"); err != nil || p.ManagedFields != nil {
			t.Errorf("a served kind: %v, %v", p, err)
		}
		for _, a := range client.Actions() {
			if a.GetResource().Resource == "statefulsets" || a.GetResource().Resource == "resourceclaims" {
				t.Errorf("the server was asked to %s %s", a.GetVerb(), a.GetResource().Resource)
			}
		}
		end()
		shared.Shutdown()
		synctest.Wait()
	})
}

func TestOwnInformersEndWithShutdown(t *testing.T) {
	asked := make(chan string, 99)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case "/api":
			_, _ = w.Write([]byte(`{"kind":"APIVersions","versions":["v1"]}`))
		case "/apis":
			_, _ = w.Write([]byte(`{"kind":"APIGroupList","groups":[]}`))
		case "/api/v1":
			_, _ = w.Write([]byte(`{"kind":"APIResourceList","groupVersion":"v1","resources":[{"name":"pods","kind":"Pod"}]}`))
		default:
			asked <- r.URL.Path
			<-r.Context().Done() // a watch
		}
	}))
	defer api.Close()
	f, err := NewInformers(t.Context(), &rest.Config{Host: api.URL})
	if err != nil {
		t.Fatal(err)
	}
	pods := f.Core().V1().Pods().Informer()
	f.Start(nil)
	if path := <-asked; path != "/api/v1/pods" {
		t.Errorf("asked for %s", path)
	}
	f.Shutdown() // though the term is not over
	if !pods.IsStopped() {
		t.Error("the informer runs on")
	}
}

func TestHandlersGoWithTheirTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := server()
		life, stop := context.WithCancel(t.Context())
		defer stop()
		shared := informers.NewSharedInformerFactory(client, 0)
		always, events := 0, []string{}
		note := func(who string) cache.ResourceEventHandlerFuncs {
			return cache.ResourceEventHandlerFuncs{AddFunc: func(o any) { events = append(events, who+" "+o.(metav1.Object).GetName()) }}
		}
		if _, err := shared.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(any) { always++ }}); err != nil {
			t.Fatal(err)
		}
		term := func(who string) context.CancelFunc {
			ctx, end := context.WithCancel(life)
			f, err := share(ctx, life, shared, client.Discovery())
			if err != nil {
				t.Fatal(err)
			}
			generic, err := f.ForResource(corev1.SchemeGroupVersion.WithResource("pods"))
			if err != nil {
				t.Fatal(err)
			}
			if generic.Informer() != f.Core().V1().Pods().Informer() {
				t.Error("two informers of one kind")
			}
			if _, err := generic.Informer().AddEventHandler(note(who)); err != nil {
				t.Fatal(err)
			}
			f.Start(ctx.Done())
			f.WaitForCacheSync(ctx.Done())
			synctest.Wait()
			return end
		}
		create := func(name string) {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}}
			if _, err := client.CoreV1().Pods("a").Create(life, pod, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			synctest.Wait()
		}
		endFirst := term("first")
		endFirst()
		synctest.Wait()
		create("between")
		endSecond := term("second")
		create("later")
		endSecond()
		synctest.Wait()
		create("afterwards")

		want := map[string]bool{"first p": true, "second p": true, "second between": true, "second later": true}
		for _, e := range events {
			if !want[e] {
				t.Errorf("%q was heard", e)
			}
			delete(want, e)
		}
		if len(want) > 0 {
			t.Errorf("never heard: %v", want)
		}
		if always != 4 {
			t.Errorf("the server's own handler heard of %d pods, want 4: its informer must outlive the terms", always)
		}
	})
}

// Upstream's constructors register handlers which use fields they set later.
func TestHandlersHearNothingBeforeStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := server()
		term, end := context.WithCancel(t.Context())
		shared := informers.NewSharedInformerFactory(client, 0)
		shared.Core().V1().Pods().Informer()
		shared.Start(term.Done())
		shared.WaitForCacheSync(term.Done()) // running, as the API server's are
		scheduler, err := share(term, term, shared, client.Discovery())
		if err != nil {
			t.Fatal(err)
		}
		controllers := scheduler.fork()
		heard := map[string]int{}
		for who, f := range map[string]*Informers{"scheduler": scheduler, "controllers": controllers} {
			if _, err := f.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(any) { heard[who]++ }}); err != nil {
				t.Fatal(err)
			}
		}
		settled := func() string {
			time.Sleep(time.Second)
			synctest.Wait()
			return fmt.Sprint(heard)
		}
		if got := settled(); got != "map[]" {
			t.Errorf("before Start: %s", got)
		}
		scheduler.Start(nil)
		if got := settled(); got != "map[scheduler:1]" {
			t.Errorf("after the scheduler's Start: %s", got)
		}
		controllers.Start(nil)
		if got := settled(); got != "map[controllers:1 scheduler:1]" {
			t.Errorf("after both: %s", got)
		}
		end()
		synctest.Wait()
	})
}

func TestOptionsValidate(t *testing.T) {
	if err := (&Options{}).Validate(); err == nil {
		t.Error("no error without Config and Informers")
	}
	o := Options{}.withDefaults()
	if o.NodeCIDRMaskSize != 24 || o.NodeMonitorGracePeriod != 40*time.Second {
		t.Errorf("defaults: %+v", o)
	}
}

func TestAPartThatEndsIsAFailure(t *testing.T) {
	for name, tc := range map[string]struct {
		run  func(context.Context) error
		fail bool
	}{
		"ends by itself":      {func(context.Context) error { return nil }, true},
		"fails":               {func(context.Context) error { return context.DeadlineExceeded }, true},
		"ends with the term":  {func(ctx context.Context) error { <-ctx.Done(); return nil }, false},
		"fails with the term": {func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := (part{name, tc.run}).watched(ctx); (err != nil) != tc.fail {
					t.Errorf("got %v, want an error: %v", err, tc.fail)
				}
			})
		})
	}
}
