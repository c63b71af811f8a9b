package direct_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/component-base/metrics/legacyregistry"
	"k8s.io/utils/ptr"

	"github.com/everynode/everynode/internal/apiserver"
	"github.com/everynode/everynode/internal/apiserver/direct"
	"github.com/everynode/everynode/internal/apiserver/pki"
	"github.com/everynode/everynode/internal/store"
)

// fixture is a whole API server, and both ways to write to it.
type fixture struct {
	client  kubernetes.Interface // over TLS and the handler chain
	writer  *direct.Writer       // straight to the registries
	sources *direct.Sources
	etcd    *clientv3.Client
	audit   string
}

func start(t *testing.T) *fixture {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	dir := t.TempDir()
	backend, err := store.Open(ctx, store.Options{DataDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := pki.Ensure(ctx, filepath.Join(dir, "pki"), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, services, _ := net.ParseCIDR("10.43.0.0/16")
	_, cluster, _ := net.ParseCIDR("10.42.0.0/16")
	policy := filepath.Join(dir, "audit-policy.yaml")
	if err := os.WriteFile(policy, []byte(`{"apiVersion":"audit.k8s.io/v1","kind":"Policy","rules":[{"level":"RequestResponse","verbs":["create","update","delete"]},{"level":"None"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &fixture{etcd: backend.Client(), audit: filepath.Join(dir, "audit.log")}
	server, err := apiserver.New(ctx, apiserver.Options{
		DataDir: dir, Listen: "127.0.0.1:0", Store: backend, PKI: bundle, ServiceCIDR: services, ClusterCIDR: cluster,
		AuditLogPath: f.audit, AuditPolicyFile: policy,
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the server ended with %v", err)
		}
		backend.Close()
	})
	select {
	case <-server.Ready():
	case err := <-done:
		t.Fatalf("the server ended before it was ready: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("the server is not ready")
	}
	f.client, f.writer, f.sources = kubernetes.NewForConfigOrDie(server.ClientConfig()), server.Writer(), server.Sources()
	return f
}

// namespace makes one with the service account that its controller would make.
func (f *fixture) namespace(t *testing.T, name string, labels map[string]string) {
	t.Helper()
	ctx := context.Background()
	if _, err := f.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.client.CoreV1().ServiceAccounts(name).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// stored is what etcd holds, without what differs between any two writes.
func (f *fixture) stored(t *testing.T, key string) []byte {
	t.Helper()
	r, err := f.etcd.Get(context.Background(), "/registry/"+key)
	if err != nil || len(r.Kvs) != 1 {
		t.Fatalf("%s: %d values, %v", key, len(r.Kvs), err)
	}
	obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(r.Kvs[0].Value, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	meta := obj.(metav1.Object)
	if created := meta.GetCreationTimestamp(); meta.GetUID() == "" || created.IsZero() {
		t.Errorf("%s lacks system metadata", key)
	}
	meta.SetUID("uid")
	meta.SetManagedFields(nil)
	meta.SetCreationTimestamp(metav1.Time{})
	if meta.GetDeletionTimestamp() != nil {
		meta.SetDeletionTimestamp(&metav1.Time{Time: time.Unix(1, 0)})
	}
	if pod, ok := obj.(*corev1.Pod); ok {
		for i, v := range pod.Spec.Volumes { // the ServiceAccount plugin makes up a suffix
			if strings.HasPrefix(v.Name, "kube-api-access-") {
				renameVolume(pod, i)
			}
		}
	}
	encoded, err := runtime.Encode(scheme.Codecs.LegacyCodec(corev1.SchemeGroupVersion, appsv1.SchemeGroupVersion), obj)
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

func renameVolume(pod *corev1.Pod, i int) {
	const name = "kube-api-access"
	for c := range pod.Spec.Containers {
		for m := range pod.Spec.Containers[c].VolumeMounts {
			if pod.Spec.Containers[c].VolumeMounts[m].Name == pod.Spec.Volumes[i].Name {
				pod.Spec.Containers[c].VolumeMounts[m].Name = name
			}
		}
	}
	pod.Spec.Volumes[i].Name = name
}

func daemonPod(namespace string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "agent-abcd1234", Namespace: namespace, GenerateName: "agent-", Labels: map[string]string{"app": "agent", "controller-revision-hash": "1"},
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Name: "agent", UID: "5b2f0e8e-0000-4000-8000-000000000001",
				Controller: ptr.To(true), BlockOwnerDeletion: ptr.To(true)}},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "somebody", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(`{}`)}},
		},
		Spec: corev1.PodSpec{
			NodeName:   "n1",
			Containers: []corev1.Container{{Name: "agent", Image: "agent:1", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{"cpu": resource.MustParse("0.1")}}}},
		},
	}
}

func forceDelete(t *testing.T, f *fixture, namespace, name string) {
	t.Helper()
	err := f.client.CoreV1().Pods(namespace).Delete(context.Background(), name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
}

// status is the answer that a client sees.
func status(t *testing.T, err error) metav1.Status {
	t.Helper()
	if err == nil {
		return metav1.Status{Status: metav1.StatusSuccess}
	}
	s := apierrors.APIStatus(nil)
	if !errors.As(err, &s) {
		t.Fatalf("not an API status: %T %v", err, err)
	}
	got := s.Status()
	got.TypeMeta = metav1.TypeMeta{}
	got.ListMeta = metav1.ListMeta{}
	return got
}

// TestBothWaysAreOne holds a write through the handler chain against the same write straight to the registries.
func TestBothWaysAreOne(t *testing.T) {
	f := start(t)
	t.Run("create", f.create)
	t.Run("delete", f.delete)
	t.Run("DaemonSet status", f.daemonSetStatus)
	t.Run("audit", f.audited)
	t.Run("metrics", f.counted)
	t.Run("copies", f.copies)
	t.Run("context", f.contexts)
}

func (f *fixture) create(t *testing.T) {
	ctx := context.Background()
	f.namespace(t, "plain", nil)
	f.namespace(t, "limited", nil)
	f.namespace(t, "restricted", map[string]string{"pod-security.kubernetes.io/enforce": "restricted"})
	f.namespace(t, "leaving", nil)
	limits := &corev1.LimitRange{ObjectMeta: metav1.ObjectMeta{Name: "limits"}, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
		Type: corev1.LimitTypeContainer, Default: corev1.ResourceList{"memory": resource.MustParse("64Mi")}, Max: corev1.ResourceList{"cpu": resource.MustParse("2")}}}}}
	if _, err := f.client.CoreV1().LimitRanges("limited").Create(ctx, limits, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := f.client.CoreV1().Namespaces().Delete(ctx, "leaving", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	f.awaitLimits(t)

	for _, c := range []struct {
		name, namespace string
		change          func(*corev1.Pod)
		refused         metav1.StatusReason
	}{
		{name: "plain", namespace: "plain"},
		{name: "unbound", namespace: "plain", change: func(p *corev1.Pod) { p.Spec.NodeName = "" }},
		{name: "host network and port", namespace: "plain", change: func(p *corev1.Pod) {
			p.Spec.HostNetwork = true
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 9100}}
		}},
		{name: "priority class", namespace: "plain", change: func(p *corev1.Pod) { p.Spec.PriorityClassName = "system-node-critical" }},
		{name: "probe, volumes, tolerations", namespace: "plain", change: func(p *corev1.Pod) {
			p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{}}}
			p.Spec.Containers[0].ReadinessProbe.TCPSocket.Port.IntVal = 80
			p.Spec.Volumes = []corev1.Volume{{Name: "host", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/proc"}}}, {Name: "cm", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}}}
			p.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
		}},
		{name: "limits by default", namespace: "limited"},
		{name: "system metadata that the caller may not choose", namespace: "plain", change: func(p *corev1.Pod) {
			p.UID, p.CreationTimestamp, p.Generation = "mine", metav1.Now(), 7
			p.Status.Phase = corev1.PodRunning
		}},
		{name: "over the limit", namespace: "limited", refused: metav1.StatusReasonForbidden, change: func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"cpu": resource.MustParse("3")}
		}},
		{name: "pod security", namespace: "restricted", refused: metav1.StatusReasonForbidden},
		{name: "namespace missing", namespace: "missing", refused: metav1.StatusReasonNotFound},
		{name: "namespace terminating", namespace: "leaving", refused: metav1.StatusReasonForbidden},
		{name: "no containers", namespace: "plain", refused: metav1.StatusReasonInvalid, change: func(p *corev1.Pod) { p.Spec.Containers = nil }},
		{name: "invalid name", namespace: "plain", refused: metav1.StatusReasonInvalid, change: func(p *corev1.Pod) { p.Name = "Not_A_Name" }},
		{name: "unknown volume", namespace: "plain", refused: metav1.StatusReasonInvalid, change: func(p *corev1.Pod) {
			p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "x", MountPath: "/x"}}
		}},
		{name: "negative request", namespace: "plain", refused: metav1.StatusReasonInvalid, change: func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Requests["cpu"] = resource.MustParse("-1")
		}},
		{name: "two controllers", namespace: "plain", refused: metav1.StatusReasonInvalid, change: func(p *corev1.Pod) {
			second := p.OwnerReferences[0]
			second.UID = "5b2f0e8e-0000-4000-8000-000000000002"
			p.OwnerReferences = append(p.OwnerReferences, second)
		}},
		{name: "priority class missing", namespace: "plain", refused: metav1.StatusReasonForbidden, change: func(p *corev1.Pod) { p.Spec.PriorityClassName = "missing" }},
		{name: "runtime class missing", namespace: "plain", refused: metav1.StatusReasonForbidden, change: func(p *corev1.Pod) { p.Spec.RuntimeClassName = ptr.To("missing") }},
		{name: "service account missing", namespace: "plain", refused: metav1.StatusReasonForbidden, change: func(p *corev1.Pod) { p.Spec.ServiceAccountName = "missing" }},
		{name: "resource version set", namespace: "plain", refused: metav1.StatusReasonUnknown, change: func(p *corev1.Pod) { p.ResourceVersion = "7" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := daemonPod(c.namespace)
			if c.change != nil {
				c.change(pod)
			}
			given := pod.DeepCopy()
			key := "pods/" + pod.Namespace + "/" + pod.Name

			viaHTTP, err := f.client.CoreV1().Pods(pod.Namespace).Create(ctx, pod.DeepCopy(), metav1.CreateOptions{})
			want := status(t, err)
			var wantBytes []byte
			if err == nil {
				wantBytes = f.stored(t, key)
				if len(viaHTTP.ManagedFields) == 0 {
					t.Error("the handler chain tracks no fields: third parties' server-side apply would break")
				}
				forceDelete(t, f, pod.Namespace, pod.Name)
			}

			got, err := f.writer.CreatePod(ctx, pod)
			defer forceDelete(t, f, pod.Namespace, pod.Name)
			if diff := cmp.Diff(want, status(t, err)); diff != "" {
				t.Fatalf("the two ways answer differently (-HTTP +direct):\n%s", diff)
			}
			if want.Reason != c.refused {
				t.Errorf("refused as %q (%s), want %q", want.Reason, want.Message, c.refused)
			}
			if diff := cmp.Diff(given, pod); diff != "" {
				t.Errorf("the caller's pod was changed:\n%s", diff)
			}
			if err != nil {
				return
			}
			if gotBytes := f.stored(t, key); !bytes.Equal(gotBytes, wantBytes) {
				t.Errorf("stored differently:\nHTTP   %s\ndirect %s", wantBytes, gotBytes)
			}
			if len(got.ManagedFields) != 0 {
				t.Error("a directly created pod carries managedFields")
			}
			live, err := f.client.CoreV1().Pods(pod.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(live, got); diff != "" {
				t.Errorf("what was returned is not what a client reads (-client +returned):\n%s", diff)
			}
		})
	}

	t.Run("exists already", func(t *testing.T) {
		defer forceDelete(t, f, "plain", daemonPod("").Name)
		if _, err := f.writer.CreatePod(ctx, daemonPod("plain")); err != nil {
			t.Fatal(err)
		}
		_, viaHTTP := f.client.CoreV1().Pods("plain").Create(ctx, daemonPod("plain"), metav1.CreateOptions{})
		_, viaDirect := f.writer.CreatePod(ctx, daemonPod("plain"))
		if diff := cmp.Diff(status(t, viaHTTP), status(t, viaDirect)); diff != "" || !apierrors.IsAlreadyExists(viaDirect) {
			t.Errorf("%v\n%s", viaDirect, diff)
		}
	})
}

// awaitLimits waits until admission's informers have seen the LimitRange and the namespaces.
func (f *fixture) awaitLimits(t *testing.T) {
	t.Helper()
	ctx := context.Background()
	err := wait.PollUntilContextTimeout(ctx, 20*time.Millisecond, 10*time.Second, true, func(context.Context) (bool, error) {
		pod, err := f.client.CoreV1().Pods("limited").Create(ctx, daemonPod("limited"), metav1.CreateOptions{DryRun: []string{"All"}})
		return err == nil && !pod.Spec.Containers[0].Resources.Limits.Memory().IsZero(), nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) delete(t *testing.T) {
	ctx := context.Background()
	f.namespace(t, "deletes", nil)
	ways := map[string]func(name string, o metav1.DeleteOptions) error{
		"HTTP": func(name string, o metav1.DeleteOptions) error {
			return f.client.CoreV1().Pods("deletes").Delete(ctx, name, o)
		},
		"direct": func(name string, o metav1.DeleteOptions) error { return f.writer.DeletePod(ctx, "deletes", name, o) },
	}
	for _, c := range []struct {
		name    string
		bound   string
		target  string
		options metav1.DeleteOptions
		refused metav1.StatusReason
		stays   bool
	}{
		{name: "bound: graceful", bound: "n1", stays: true},
		{name: "bound: with another grace", bound: "n1", options: metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](5)}, stays: true},
		{name: "bound: at once", bound: "n1", options: metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}},
		{name: "unbound: at once"},
		{name: "missing", target: "missing", refused: metav1.StatusReasonNotFound, stays: true},
		{name: "another UID", bound: "n1", options: *metav1.NewPreconditionDeleteOptions("other"), refused: metav1.StatusReasonConflict, stays: true},
		{name: "unknown propagation", options: metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletionPropagation("Sometimes"))}, refused: metav1.StatusReasonInvalid, stays: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			answers, left := map[string]metav1.Status{}, map[string]string{}
			for way, remove := range ways {
				pod := daemonPod("deletes")
				pod.Spec.NodeName = c.bound
				if _, err := f.writer.CreatePod(ctx, pod); err != nil {
					t.Fatal(err)
				}
				target := pod.Name
				if c.target != "" {
					target = c.target
				}
				given := c.options.DeepCopy()
				err := remove(target, c.options)
				answers[way] = normalizeUID(status(t, err))
				if diff := cmp.Diff(given, &c.options); diff != "" {
					t.Errorf("the caller's options were changed:\n%s", diff)
				}
				if _, err := f.client.CoreV1().Pods("deletes").Get(ctx, pod.Name, metav1.GetOptions{}); (err == nil) != c.stays {
					t.Errorf("%s: read afterwards: %v", way, err)
				} else if err == nil {
					left[way] = string(f.stored(t, "pods/deletes/"+pod.Name))
				}
				forceDelete(t, f, "deletes", pod.Name)
			}
			if diff := cmp.Diff(answers["HTTP"], answers["direct"]); diff != "" {
				t.Errorf("the two ways answer differently (-HTTP +direct):\n%s", diff)
			}
			if answers["direct"].Reason != c.refused {
				t.Errorf("refused as %q (%s), want %q", answers["direct"].Reason, answers["direct"].Message, c.refused)
			}
			if left["HTTP"] != left["direct"] {
				t.Errorf("stored differently:\nHTTP   %s\ndirect %s", left["HTTP"], left["direct"])
			}
		})
	}
}

// normalizeUID blanks objects' own UIDs, which some messages quote.
func normalizeUID(s metav1.Status) metav1.Status {
	s.Message = uuid.ReplaceAllString(s.Message, "UID")
	return s
}

var uuid = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`)

func daemonSet() *appsv1.DaemonSet {
	labels := map[string]string{"app": "agent"}
	return &appsv1.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Name: "agent", Namespace: "sets"},
		Spec: appsv1.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "agent", Image: "agent:1"}}}}},
	}
}

func (f *fixture) daemonSetStatus(t *testing.T) {
	ctx := context.Background()
	f.namespace(t, "sets", nil)
	sets := f.client.AppsV1().DaemonSets("sets")
	ways := map[string]func(*appsv1.DaemonSet) (*appsv1.DaemonSet, error){
		"HTTP": func(ds *appsv1.DaemonSet) (*appsv1.DaemonSet, error) {
			return sets.UpdateStatus(ctx, ds, metav1.UpdateOptions{})
		},
		"direct": func(ds *appsv1.DaemonSet) (*appsv1.DaemonSet, error) { return f.writer.UpdateDaemonSetStatus(ctx, ds) },
	}
	for _, c := range []struct {
		name    string
		change  func(*appsv1.DaemonSet)
		refused metav1.StatusReason
	}{
		{name: "numbers", change: func(ds *appsv1.DaemonSet) {
			ds.Status = appsv1.DaemonSetStatus{DesiredNumberScheduled: 3, CurrentNumberScheduled: 2, NumberReady: 1, ObservedGeneration: ds.Generation}
		}},
		{name: "nothing changed", change: func(*appsv1.DaemonSet) {}},
		{name: "the spec is left alone", change: func(ds *appsv1.DaemonSet) {
			ds.Spec.Template.Spec.Containers[0].Image, ds.Status.NumberReady = "other:2", 1
		}},
		{name: "without a resource version", change: func(ds *appsv1.DaemonSet) { ds.ResourceVersion, ds.Status.NumberReady = "", 2 }},
		{name: "stale", change: func(ds *appsv1.DaemonSet) { ds.ResourceVersion, ds.Status.NumberReady = "1", 2 }, refused: metav1.StatusReasonConflict},
		{name: "another UID", change: func(ds *appsv1.DaemonSet) { ds.UID, ds.Status.NumberReady = types.UID("other"), 2 }, refused: metav1.StatusReasonConflict},
		{name: "negative", change: func(ds *appsv1.DaemonSet) { ds.Status.NumberReady = -1 }, refused: metav1.StatusReasonInvalid},
		{name: "missing", change: func(ds *appsv1.DaemonSet) { ds.Name = "missing" }, refused: metav1.StatusReasonNotFound},
	} {
		t.Run(c.name, func(t *testing.T) {
			answers, left := map[string]metav1.Status{}, map[string]string{}
			for way, update := range ways {
				live, err := sets.Create(ctx, daemonSet(), metav1.CreateOptions{FieldManager: "kubectl"})
				if err != nil {
					t.Fatal(err)
				}
				ds := live.DeepCopy()
				c.change(ds)
				given := ds.DeepCopy()
				got, err := update(ds)
				answers[way], left[way] = normalizeUID(status(t, err)), string(f.stored(t, "daemonsets/sets/agent"))
				if diff := cmp.Diff(given, ds); diff != "" {
					t.Errorf("the caller's DaemonSet was changed:\n%s", diff)
				}
				if way == "direct" && err == nil {
					if diff := cmp.Diff(live.ManagedFields, got.ManagedFields); diff != "" {
						t.Errorf("who owns what was changed:\n%s", diff)
					}
				}
				if err := sets.Delete(ctx, "agent", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)}); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(answers["HTTP"], answers["direct"]); diff != "" {
				t.Errorf("the two ways answer differently (-HTTP +direct):\n%s", diff)
			}
			if answers["direct"].Reason != c.refused {
				t.Errorf("refused as %q (%s), want %q", answers["direct"].Reason, answers["direct"].Message, c.refused)
			}
			if left["HTTP"] != left["direct"] {
				t.Errorf("stored differently:\nHTTP   %s\ndirect %s", left["HTTP"], left["direct"])
			}
		})
	}
}

// events reads the audit events of pods in a namespace.
func (f *fixture) events(t *testing.T, namespace string) []auditv1.Event {
	t.Helper()
	file, err := os.Open(f.audit)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var all []auditv1.Event
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e auditv1.Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			t.Fatal(err)
		}
		if e.ObjectRef != nil && e.ObjectRef.Resource == "pods" && e.ObjectRef.Namespace == namespace {
			all = append(all, e)
		}
	}
	return all
}

func (f *fixture) audited(t *testing.T) {
	ctx := context.Background()
	f.namespace(t, "audited", nil)
	bad := daemonPod("audited")
	bad.Spec.Containers = nil
	pods := f.client.CoreV1().Pods("audited")
	_, _ = pods.Create(ctx, daemonPod("audited"), metav1.CreateOptions{})
	_, _ = pods.Create(ctx, bad, metav1.CreateOptions{})
	_ = pods.Delete(ctx, bad.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
	viaHTTP := f.events(t, "audited")
	_, _ = f.writer.CreatePod(ctx, daemonPod("audited"))
	_, _ = f.writer.CreatePod(ctx, bad)
	_ = f.writer.DeletePod(ctx, "audited", bad.Name, metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)})
	viaDirect := f.events(t, "audited")[len(viaHTTP):]
	if len(viaHTTP) != 6 || len(viaDirect) != 6 { // received and complete, each
		t.Fatalf("%d and %d events", len(viaHTTP), len(viaDirect))
	}
	for i := range viaHTTP {
		if u := viaDirect[i].User; u.Username != "system:serviceaccount:kube-system:daemon-set-controller" || len(u.Groups) != 3 {
			t.Errorf("attributed to %+v", u)
		}
		if diff := cmp.Diff(line(&viaHTTP[i]), line(&viaDirect[i])); diff != "" {
			t.Errorf("event %d differs (-HTTP +direct):\n%s", i, diff)
		}
	}
	if viaDirect[0].AuditID == viaDirect[2].AuditID || viaDirect[0].AuditID != viaDirect[1].AuditID {
		t.Error("audit ids do not tell the requests apart")
	}
}

// line is what an event says about the request, without who sent it and the details of objects.
func line(e *auditv1.Event) map[string]string {
	l := map[string]string{
		"level": string(e.Level), "stage": string(e.Stage), "uri": e.RequestURI, "verb": e.Verb,
		"request": fmt.Sprint(e.RequestObject != nil), "response": fmt.Sprint(e.ResponseObject != nil),
		"object": fmt.Sprintf("%s/%s %s/%s", e.ObjectRef.APIGroup, e.ObjectRef.APIVersion, e.ObjectRef.Namespace, e.ObjectRef.Name),
	}
	if e.ResponseStatus != nil {
		l["status"] = fmt.Sprintf("%d %s %s", e.ResponseStatus.Code, e.ResponseStatus.Reason, e.ResponseStatus.Message)
	}
	for k := range e.Annotations {
		if !strings.HasPrefix(k, "authorization.k8s.io/") {
			l["annotation "+k] = e.Annotations[k]
		}
	}
	return l
}

// requests counts what the server says it served.
func requests(t *testing.T, labels map[string]string) (n int) {
	t.Helper()
	families, err := legacyregistry.DefaultGatherer.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != "apiserver_request_total" {
			continue
		}
	metric:
		for _, m := range family.GetMetric() {
			got := map[string]string{}
			for _, l := range m.GetLabel() {
				got[l.GetName()] = l.GetValue()
			}
			for k, v := range labels {
				if got[k] != v {
					continue metric
				}
			}
			n += int(m.GetCounter().GetValue())
		}
	}
	return n
}

func (f *fixture) counted(t *testing.T) {
	ctx := context.Background()
	f.namespace(t, "counted", nil)
	bad := daemonPod("counted")
	bad.Spec.Containers = nil
	for _, c := range []struct {
		labels       map[string]string
		http, direct func()
	}{
		{map[string]string{"verb": "POST", "resource": "pods", "subresource": "", "code": "201", "scope": "resource", "component": "apiserver", "version": "v1", "group": ""},
			func() {
				_, _ = f.client.CoreV1().Pods("counted").Create(ctx, daemonPod("counted"), metav1.CreateOptions{})
			},
			func() { _, _ = f.writer.CreatePod(ctx, daemonPod("counted")) }},
		{map[string]string{"verb": "POST", "resource": "pods", "code": "422", "scope": "resource"},
			func() { _, _ = f.client.CoreV1().Pods("counted").Create(ctx, bad, metav1.CreateOptions{}) },
			func() { _, _ = f.writer.CreatePod(ctx, bad) }},
		{map[string]string{"verb": "DELETE", "resource": "pods", "code": "404", "scope": "resource"},
			func() { _ = f.client.CoreV1().Pods("counted").Delete(ctx, "missing", metav1.DeleteOptions{}) },
			func() { _ = f.writer.DeletePod(ctx, "counted", "missing", metav1.DeleteOptions{}) }},
		{map[string]string{"verb": "PUT", "resource": "daemonsets", "subresource": "status", "group": "apps", "code": "404", "scope": "resource"},
			func() {
				_, _ = f.client.AppsV1().DaemonSets("sets").UpdateStatus(ctx, daemonSet(), metav1.UpdateOptions{})
			},
			func() { _, _ = f.writer.UpdateDaemonSetStatus(ctx, daemonSet()) }},
	} {
		before := requests(t, c.labels)
		c.http()
		between := requests(t, c.labels)
		if c.labels["code"] == "201" {
			forceDelete(t, f, "counted", bad.Name)
		}
		c.direct()
		if after := requests(t, c.labels); between != before+1 || after != between+1 {
			t.Errorf("%v: %d, over HTTP %d, directly %d", c.labels, before, between, after)
		}
	}
}

// copies changes what was given and what was returned: neither reaches the store or its cache.
func (f *fixture) copies(t *testing.T) {
	ctx := context.Background()
	f.namespace(t, "copies", nil)
	pod := daemonPod("copies")
	got, err := f.writer.CreatePod(ctx, pod)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*corev1.Pod{pod, got} {
		p.Labels["app"] = "changed"
		p.Spec.Containers[0].Image = "changed"
		p.Spec.Containers[0].Resources.Requests["cpu"] = resource.MustParse("7")
	}
	live, err := f.client.CoreV1().Pods("copies").Get(ctx, pod.Name, metav1.GetOptions{ResourceVersion: "0"})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	if err == nil && (live.Labels["app"] != "agent" || live.Spec.Containers[0].Image != "agent:1") {
		t.Errorf("the cache shares memory with a caller: %v", live.Labels)
	}
}

func (f *fixture) contexts(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := f.writer.CreatePod(ctx, daemonPod("copies")); !apierrors.IsTimeout(err) {
		t.Errorf("a write that was cancelled: %v", err)
	}
}
