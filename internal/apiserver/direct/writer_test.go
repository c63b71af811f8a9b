package direct

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/registry/rest"
)

// registry is a pod registry that does what a test says.
type registry struct {
	Pods
	create func(context.Context, runtime.Object) (runtime.Object, error)
}

func (r registry) Create(ctx context.Context, obj runtime.Object, _ rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	return r.create(ctx, obj)
}

// sink is an audit log that can be full.
type sink struct {
	full   bool
	stages []string
}

func (s *sink) ProcessEvents(events ...*auditinternal.Event) bool {
	for _, e := range events {
		s.stages = append(s.stages, string(e.Stage))
	}
	return !s.full
}

type everything struct{}

func (everything) EvaluatePolicyRule(authorizer.Attributes) audit.RequestAuditConfig {
	return audit.RequestAuditConfig{Level: auditinternal.LevelMetadata}
}

func newWriter(t *testing.T, s *sink, create func(context.Context, runtime.Object) (runtime.Object, error)) *Writer {
	t.Helper()
	w, err := New(Options{Pods: registry{create: create}, DaemonSetStatus: struct{ rest.Updater }{}, Admission: admission.NewChainHandler(),
		AuditBackend: s, AuditPolicyEvaluator: everything{}})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func TestAPanicIsAnErrorOfOneWrite(t *testing.T) {
	s := &sink{}
	w := newWriter(t, s, func(context.Context, runtime.Object) (runtime.Object, error) { panic("a bug") })
	_, err := w.CreatePod(context.Background(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}})
	if !apierrors.IsInternalError(err) || !strings.Contains(err.Error(), "create ns/p") {
		t.Errorf("got %v", err)
	}
	if got := strings.Join(s.stages, ","); got != "RequestReceived,Panic" {
		t.Errorf("audited as %s", got)
	}
}

func TestWhatCannotBeAuditedIsNotWritten(t *testing.T) {
	written := false
	w := newWriter(t, &sink{full: true}, func(_ context.Context, obj runtime.Object) (runtime.Object, error) {
		written = true
		return obj, nil
	})
	_, err := w.CreatePod(context.Background(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}})
	if !apierrors.IsInternalError(err) || written {
		t.Errorf("written: %v, error: %v", written, err)
	}
}

func TestAWriteHasADeadline(t *testing.T) {
	w := newWriter(t, &sink{}, func(ctx context.Context, obj runtime.Object) (runtime.Object, error) {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("no deadline")
		}
		return obj, nil
	})
	if _, err := w.CreatePod(context.Background(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "p"}}); err != nil {
		t.Error(err)
	}
}

func TestOptionsValidate(t *testing.T) {
	o := Options{}
	for _, part := range []struct {
		missing string
		add     func()
	}{
		{"pod registry", func() { o.Pods = registry{} }},
		{"daemonsets/status", func() { o.DaemonSetStatus = struct{ rest.Updater }{} }},
		{"admission", func() { o.Admission = admission.NewChainHandler() }},
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), part.missing) {
			t.Errorf("%v, want an error about %s", err, part.missing)
		}
		part.add()
	}
	if _, err := New(o); err != nil {
		t.Error(err)
	}
}
