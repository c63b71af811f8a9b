package apiserver

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// A DaemonSet that cannot work is refused with the field that is wrong, and nothing is stored.
func TestBadDaemonSets(t *testing.T) {
	c := shared(t)
	ns := c.namespace(t, nil)
	client := c.admin(t)
	const good = `{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},
		"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`
	for name, tc := range map[string]struct{ old, new, want string }{
		"no image":          {`,"image":"i"`, ``, `spec.template.spec.containers[0].image: Required value`},
		"no containers":     {`[{"name":"c","image":"i"}]`, `[]`, `spec.template.spec.containers: Required value`},
		"selector":          {`"labels":{"a":"b"}`, `"labels":{"a":"c"}`, "`selector` does not match template `labels`"},
		"no selector":       {`"selector":{"matchLabels":{"a":"b"}},`, ``, "`selector` does not match template `labels`"},
		"name":              {`"name":"d"`, `"name":"D_d"`, `metadata.name: Invalid value`},
		"quantity":          {`"image":"i"`, `"image":"i","resources":{"limits":{"memory":"lots"}}`, `quantities must match the regular expression`},
		"unknown field":     {`"spec":{"sel`, `"spec":{"replicas":3,"sel`, `unknown field "spec.replicas"`},
		"restart policy":    {`"containers":[`, `"restartPolicy":"Never","containers":[`, `spec.template.spec.restartPolicy: Unsupported value`},
		"no update at all":  {`"selector":`, `"updateStrategy":{"rollingUpdate":{"maxUnavailable":0}},"selector":`, `cannot be 0`},
		"old API version":   {`apps/v1`, `extensions/v1beta1`, `does not match the expected API version`},
		"both mount points": {`"image":"i"`, `"image":"i","volumeMounts":[{"name":"v","mountPath":"/v"}]`, `volumeMounts[0].name: Not found: "v"`},
	} {
		t.Run(name, func(t *testing.T) {
			body := strings.Replace(good, tc.old, tc.new, 1)
			if body == good {
				t.Fatal("nothing was changed")
			}
			err := client.AppsV1().RESTClient().Post().Namespace(ns).Resource("daemonsets").Param("fieldValidation", "Strict").
				SetHeader("Content-Type", "application/json").Body([]byte(body)).Do(t.Context()).Error()
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	if list, err := client.AppsV1().DaemonSets(ns).List(t.Context(), metav1.ListOptions{}); err != nil || len(list.Items) != 0 {
		t.Errorf("stored: %v, %v", list, err)
	}
}

// Kinds without a controller are not there, rather than accepted and ignored.
func TestNotServed(t *testing.T) {
	client := shared(t).admin(t)
	for _, path := range []string{
		"/apis/apps/v1/statefulsets", "/api/v1/resourcequotas", "/api/v1/replicationcontrollers", "/api/v1/componentstatuses",
		"/apis/batch/v1/jobs", "/apis/networking.k8s.io/v1/ingresses", "/apis/autoscaling/v1/horizontalpodautoscalers",
		"/apis/resource.k8s.io/v1/resourceclaims", "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations",
		"/apis/extensions/v1beta1/daemonsets", "/apis/storage.k8s.io/v1/volumeattributesclasses",
	} {
		if err := client.RESTClient().Get().AbsPath(path).Do(t.Context()).Error(); !apierrors.IsNotFound(err) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestTable(t *testing.T) {
	c := shared(t)
	ns := c.namespace(t, nil)
	client := c.admin(t)
	if _, err := client.AppsV1().DaemonSets(ns).Create(t.Context(), daemonSet("d"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	b, err := client.AppsV1().RESTClient().Get().Namespace(ns).Resource("daemonsets").
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var table metav1.Table
	if err := json.Unmarshal(b, &table); err != nil {
		t.Fatal(err)
	}
	var columns []string
	for _, d := range table.ColumnDefinitions {
		if d.Priority == 0 {
			columns = append(columns, d.Name)
		}
	}
	if got, want := strings.Join(columns, " "), "Name Desired Current Ready Up-to-date Available Node Selector Age"; got != want {
		t.Errorf("columns %q, want %q", got, want)
	}
}

// What comes over HTTP keeps its field owners, so that several can apply to one object.
func TestServerSideApply(t *testing.T) {
	c := shared(t)
	ns := c.namespace(t, nil)
	client := c.admin(t)
	apply := func(owner, key string, force bool) error {
		body := fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{%q:%q}}`, key, owner)
		_, err := client.CoreV1().ConfigMaps(ns).Patch(t.Context(), "a", types.ApplyPatchType, []byte(body), metav1.PatchOptions{FieldManager: owner, Force: &force})
		return err
	}
	for _, owner := range []string{"x", "y"} {
		if err := apply(owner, owner, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := apply("y", "x", false); !apierrors.IsConflict(err) {
		t.Errorf("taking another's field: %v", err)
	}
	if err := apply("x", "z", false); err != nil { // gives up x
		t.Fatal(err)
	}
	got, err := client.CoreV1().ConfigMaps(ns).Get(t.Context(), "a", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got.Data) != "map[y:y z:x]" {
		t.Errorf("data %v", got.Data)
	}
}

func TestPodAdmission(t *testing.T) {
	c := shared(t)
	ctx, client := t.Context(), c.admin(t)
	ns := c.namespace(t, map[string]string{"pod-security.kubernetes.io/enforce": "baseline"})
	p := pod("p", "")
	p.Spec.PriorityClassName = "system-node-critical"
	got, err := client.CoreV1().Pods(ns).Create(ctx, p, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Spec.Priority == nil || *got.Spec.Priority != 2000001000 {
		t.Errorf("priority %v", got.Spec.Priority)
	}
	if n := len(got.Spec.Tolerations); n != 2 {
		t.Errorf("%d default tolerations", n)
	}
	if len(got.Spec.Volumes) != 1 || got.Spec.Volumes[0].Projected == nil {
		t.Errorf("no token volume: %v", got.Spec.Volumes)
	}
	p = pod("privileged", "")
	p.Spec.HostNetwork = true
	if _, err := client.CoreV1().Pods(ns).Create(ctx, p, metav1.CreateOptions{}); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "host namespaces") {
		t.Errorf("a privileged pod: %v", err)
	}
	p = pod("unknown-class", "")
	p.Spec.PriorityClassName = "no-such-class"
	if _, err := client.CoreV1().Pods(ns).Create(ctx, p, metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a priority class that is not there: %v", err)
	}
	if _, err := client.CoreV1().Pods("no-such-namespace").Create(ctx, pod("p", ""), metav1.CreateOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a namespace that is not there: %v", err)
	}
}

// An agent watches its own pods by node name: the cache has an index for that.
func TestPodsOfANode(t *testing.T) {
	c := shared(t)
	ctx, client := t.Context(), c.admin(t)
	ns := c.namespace(t, nil)
	for i, node := range []string{"node-x", "node-y", ""} {
		if _, err := client.CoreV1().Pods(ns).Create(ctx, pod(fmt.Sprintf("p%d", i), node), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	indexed := counter(t, "apiserver_cache_list_total", map[string]string{"index": "f:spec.nodeName", "resource": "pods"})
	list, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=node-x"})
	if err != nil || len(list.Items) != 1 {
		t.Errorf("pods of node-x: %v, %v", list, err)
	}
	if got := counter(t, "apiserver_cache_list_total", map[string]string{"index": "f:spec.nodeName", "resource": "pods"}); got != indexed+1 {
		t.Errorf("the index was used %v times", got-indexed)
	}
}

func TestScale(t *testing.T) {
	c := shared(t)
	ctx, client := t.Context(), c.admin(t)
	ns := c.namespace(t, nil)
	body := `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},
		"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`
	if err := client.AppsV1().RESTClient().Post().Namespace(ns).Resource("deployments").SetHeader("Content-Type", "application/json").Body([]byte(body)).Do(ctx).Error(); err != nil {
		t.Fatal(err)
	}
	s, err := client.AppsV1().Deployments(ns).GetScale(ctx, "d", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	s.Spec.Replicas = 3
	if _, err := client.AppsV1().Deployments(ns).UpdateScale(ctx, "d", s, metav1.UpdateOptions{}); err != nil {
		t.Error(err)
	}
}

func TestEviction(t *testing.T) {
	c := shared(t)
	ctx, client := t.Context(), c.admin(t)
	ns := c.namespace(t, nil)
	if _, err := client.CoreV1().Pods(ns).Create(ctx, pod("p", ""), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := client.CoreV1().Pods(ns).EvictV1(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "p"}}); err != nil {
		t.Error(err)
	}
	if _, err := client.CoreV1().Pods(ns).Get(ctx, "p", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("an evicted pod that never ran: %v", err)
	}
}

func TestBinding(t *testing.T) {
	c := shared(t)
	ctx, client := t.Context(), c.admin(t)
	ns := c.namespace(t, nil)
	if _, err := client.CoreV1().Pods(ns).Create(ctx, pod("p", ""), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	b := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}
	if err := client.CoreV1().Pods(ns).Bind(ctx, b, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if p, err := client.CoreV1().Pods(ns).Get(ctx, "p", metav1.GetOptions{}); err != nil || p.Spec.NodeName != "n" {
		t.Errorf("bound to %v, %v", p, err)
	}
}
