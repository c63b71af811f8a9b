package routes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/everynode/everynode/test/fakeapi"
)

// cluster is a fake API server with the controller running on it.
type cluster struct {
	*testing.T
	*fake.Clientset
	writes func() []string
}

// start runs the controller over the given objects, until the test ends.
func start(t *testing.T, objects ...runtime.Object) *cluster {
	client := fake.NewClientset(objects...)
	c := &cluster{T: t, Clientset: client, writes: recordWrites(client)}
	_, cidr, _ := net.ParseCIDR("10.42.0.0/15")
	t.Cleanup(fakeapi.Start(t, client, func(f informers.SharedInformerFactory) (*Controller, error) {
		return New(Options{Client: client, Informers: f, ClusterCIDR: cidr})
	}))
	c.settle()
	return c
}

// settle lets time pass until everything must have been written.
func (c *cluster) settle() {
	time.Sleep(time.Second)
	synctest.Wait()
}

// recordWrites gives objects UIDs and rising resource versions, as the fake does not, and notes
// which ConfigMaps are written.
func recordWrites(client *fake.Clientset) func() []string {
	var mu sync.Mutex
	var noted []string
	version := 1000
	client.PrependReactor("*", "configmaps", func(a clienttesting.Action) (bool, runtime.Object, error) {
		mu.Lock()
		defer mu.Unlock()
		switch a := a.(type) {
		case clienttesting.CreateActionImpl:
			version++
			m := a.Object.(*corev1.ConfigMap)
			m.ResourceVersion, m.UID = strconv.Itoa(version), types.UID(strconv.Itoa(version))
			noted = append(noted, "create "+m.Name)
		case clienttesting.UpdateActionImpl:
			version++
			m := a.Object.(*corev1.ConfigMap)
			m.ResourceVersion = strconv.Itoa(version)
			noted = append(noted, "update "+m.Name)
		case clienttesting.DeleteActionImpl:
			noted = append(noted, "delete "+a.Name)
		}
		return false, nil, nil
	})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		n := noted
		noted = nil
		return n
	}
}

// published is every ConfigMap of the namespace: "name: key=value key=value".
func (c *cluster) published() []string {
	c.Helper()
	list, err := c.CoreV1().ConfigMaps(Namespace).List(context.Background(), metav1.ListOptions{})
	if err != nil {
		c.Fatal(err)
	}
	var all []string
	for _, m := range list.Items {
		var data []string
		for k, v := range m.Data {
			data = append(data, k+"="+v)
		}
		slices.Sort(data)
		all = append(all, m.Name+": "+strings.Join(data, " "))
	}
	slices.Sort(all)
	return all
}

func (c *cluster) expect(what string, want ...string) {
	c.Helper()
	c.settle()
	if d := cmp.Diff(want, c.published()); d != "" {
		c.Errorf("%s: (-want +got)\n%s", what, d)
	}
}

func (c *cluster) must(_ any, err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

func published(name string, data ...string) *corev1.ConfigMap {
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: name, UID: types.UID(name), ResourceVersion: "7",
		Annotations: map[string]string{clusterCIDRAnnotation: "10.42.0.0/15"}}, Data: map[string]string{}}
	for _, d := range data {
		k, v, _ := strings.Cut(d, "=")
		m.Data[k] = v
	}
	return m
}

func TestFollowsTheNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		c := start(t, node("a", "10.42.0.0/24", "192.0.2.1"))
		c.expect("one node", "node-routes-000: 10.42.0.0-24=192.0.2.1")

		c.must(c.CoreV1().Nodes().Create(ctx, node("b", "", "192.0.2.2"), metav1.CreateOptions{}))
		c.expect("a node that has no range yet", "node-routes-000: 10.42.0.0-24=192.0.2.1")

		c.must(c.CoreV1().Nodes().Update(ctx, node("b", "10.43.1.0/24", "192.0.2.2"), metav1.UpdateOptions{}))
		c.expect("its range", "node-routes-000: 10.42.0.0-24=192.0.2.1", "node-routes-001: 10.43.1.0-24=192.0.2.2")

		c.must(nil, c.CoreV1().Nodes().Delete(ctx, "a", metav1.DeleteOptions{}))
		c.expect("the first is gone", "node-routes-001: 10.43.1.0-24=192.0.2.2")

		want := []string{"create node-routes-000", "create node-routes-001", "delete node-routes-000"}
		if d := cmp.Diff(want, c.writes()); d != "" {
			t.Errorf("writes (-want +got)\n%s", d)
		}
		c.must(c.CoreV1().Nodes().Update(ctx, node("b", "10.43.1.0/24", "192.0.2.2"), metav1.UpdateOptions{}))
		c.settle()
		if w := c.writes(); len(w) != 0 {
			t.Errorf("a heartbeat wrote %v", w)
		}
	})
}

func TestStartsFromScratch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t,
			node("a", "10.42.0.0/24", "192.0.2.1"), node("b", "10.42.1.0/24", "192.0.2.2"), node("c", "10.43.0.0/24", "192.0.2.3"),
			published("node-routes-000", "10.42.0.0-24=192.0.2.1", "10.42.9.0-24=192.0.2.9"),
			published("node-routes-001", "10.43.0.0-24=192.0.2.3"),
			published("node-routes-007", "10.49.0.0-24=192.0.2.7"),
			published("kube-root-ca.crt", "ca.crt=PEM"))
		c.expect("stale keys and ConfigMaps are gone",
			"kube-root-ca.crt: ca.crt=PEM",
			"node-routes-000: 10.42.0.0-24=192.0.2.1 10.42.1.0-24=192.0.2.2",
			"node-routes-001: 10.43.0.0-24=192.0.2.3")
		if d := cmp.Diff([]string{"update node-routes-000", "delete node-routes-007"}, c.writes()); d != "" {
			t.Errorf("writes (-want +got)\n%s", d)
		}
	})
}

func TestTheClusterRangeIsPublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := published("node-routes-000", "10.42.0.0-24=192.0.2.1")
		old.Annotations[clusterCIDRAnnotation] = "10.42.0.0/16" // before the range was widened
		c := start(t, node("a", "10.42.0.0/24", "192.0.2.1"), node("b", "10.43.0.0/24", "192.0.2.2"), old)
		for _, name := range []string{"node-routes-000", "node-routes-001"} {
			m, err := c.CoreV1().ConfigMaps(Namespace).Get(t.Context(), name, metav1.GetOptions{})
			c.must(m, err)
			if got := m.Annotations[clusterCIDRAnnotation]; got != "10.42.0.0/15" {
				t.Errorf("%s: cluster range %q, want 10.42.0.0/15", name, got)
			}
		}
	})
}

func TestABurstIsOneWriteAConfigMap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		for i := range 300 {
			n := node(fmt.Sprintf("n%03d", i), fmt.Sprintf("10.%d.%d.0/24", 42+i/256, i%256), fmt.Sprintf("198.51.%d.%d", i/256, i%256))
			c.must(c.CoreV1().Nodes().Create(t.Context(), n, metav1.CreateOptions{}))
		}
		time.Sleep(gather + time.Millisecond)
		synctest.Wait()
		if d := cmp.Diff([]string{"create node-routes-000", "create node-routes-001"}, c.writes()); d != "" {
			t.Errorf("writes (-want +got)\n%s", d)
		}
		m, err := c.CoreV1().ConfigMaps(Namespace).Get(t.Context(), "node-routes-000", metav1.GetOptions{})
		if err != nil || len(m.Data) != 256 {
			t.Errorf("node-routes-000 has %d routes (%v), want 256", len(m.Data), err)
		}
	})
}

func TestRepairsWhatOthersDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		c := start(t, node("a", "10.42.0.0/24", "192.0.2.1"))
		want := "node-routes-000: 10.42.0.0-24=192.0.2.1"
		c.expect("before", want)

		m, err := c.CoreV1().ConfigMaps(Namespace).Get(ctx, "node-routes-000", metav1.GetOptions{})
		c.must(m, err)
		m.Data = map[string]string{"10.42.0.0-24": "203.0.113.66"}
		c.must(c.CoreV1().ConfigMaps(Namespace).Update(ctx, m, metav1.UpdateOptions{}))
		c.expect("after a hand's edit", want)

		c.must(nil, c.CoreV1().ConfigMaps(Namespace).Delete(ctx, "node-routes-000", metav1.DeleteOptions{}))
		c.expect("after a hand's deletion", want)
	})
}

func TestRetries(t *testing.T) {
	for name, failure := range map[string]error{
		"server error": errors.New("etcdserver: mvcc: database space exceeded"),
		"conflict":     apierrors.NewConflict(corev1.Resource("configmaps"), "node-routes-000", errors.New("changed")),
		"exists":       apierrors.NewAlreadyExists(corev1.Resource("configmaps"), "node-routes-000"),
		"gone":         apierrors.NewNotFound(corev1.Resource("configmaps"), "node-routes-000"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := start(t, node("a", "10.42.0.0/24", "192.0.2.1"))
				left := 3
				fail := func(clienttesting.Action) (bool, runtime.Object, error) {
					left--
					return left >= 0, nil, failure
				}
				c.PrependReactor("create", "configmaps", fail)
				c.PrependReactor("update", "configmaps", fail)
				c.must(c.CoreV1().Nodes().Create(t.Context(), node("b", "10.42.1.0/24", "192.0.2.2"), metav1.CreateOptions{}))
				time.Sleep(10 * time.Second)
				c.expect("in the end", "node-routes-000: 10.42.0.0-24=192.0.2.1 10.42.1.0-24=192.0.2.2")
				if left > 0 {
					t.Errorf("gave up with %d failures left", left)
				}
			})
		})
	}
}

func TestAccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wrong := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: "everynode:node-routes"},
			Rules: []rbacv1.PolicyRule{{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}}}}
		elsewhere := bindingOf(&access()[1])
		elsewhere.RoleRef.Name = "cluster-admin"
		c := start(t, wrong, elsewhere)
		if _, err := c.CoreV1().Namespaces().Get(t.Context(), Namespace, metav1.GetOptions{}); err != nil {
			t.Error(err)
		}
		for _, r := range access() {
			have, err := c.RbacV1().Roles(r.Namespace).Get(t.Context(), r.Name, metav1.GetOptions{})
			c.must(have, err)
			if d := cmp.Diff(r.Rules, have.Rules); d != "" {
				t.Errorf("role %s (-want +got)\n%s", r.Name, d)
			}
			b, err := c.RbacV1().RoleBindings(r.Namespace).Get(t.Context(), r.Name, metav1.GetOptions{})
			c.must(b, err)
			if b.RoleRef.Name != r.Name || len(b.Subjects) != 1 || b.Subjects[0].Name != "system:nodes" {
				t.Errorf("binding %s: %+v", r.Name, b)
			}
		}
	})
}

func TestOptions(t *testing.T) {
	o := Options{}
	err := o.Validate()
	for _, part := range []string{"Client", "Informers", "ClusterCIDR"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%v does not mention %s", err, part)
		}
	}
}
