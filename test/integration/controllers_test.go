package integration

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
)

// TestControlPlane runs everything on one control plane; the parts do not depend on each other,
// and run at the same time unless they say why not.
func TestControlPlane(t *testing.T) {
	c := start(t)
	c.node(t, "n1", map[string]string{"zone": "a"})
	c.node(t, "n2", map[string]string{"zone": "b", "disk": "ssd"})
	lost := c.pod(t, c.namespace(t, "podgc"), "lost", func(p *corev1.Pod) { p.Spec.NodeName = "never-was" })
	t.Run("together", func(t *testing.T) {
		for name, part := range map[string]func(*testing.T, *cluster){
			"a namespace is given its basics, and is emptied when deleted": namespaces,
			"background deletion":                    backgroundDeletion,
			"foreground deletion":                    foregroundDeletion,
			"orphan deletion":                        orphanDeletion,
			"a deployment makes pods":                deployments,
			"a service finds its pods":               services,
			"a legacy token secret is filled":        tokenSecrets,
			"a volume is bound, and kept while used": volumes,
			"a disruption budget counts":             budgets,
			"cluster roles are aggregated":           aggregation,
			"nodes get ranges, and routes":           nodeRanges,
			"nodes may read routes and API servers":  nodeAccess,
			"a certificate is signed":                signing,
			"pods go where they should":              placement,
			"a pod that fits nowhere says why":       failedScheduling,
			"an ended pod makes room":                endedPods,
			"the more important pod gets the room":   preemption,
			"a pod with a claim that cannot be had":  resourceClaims,
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				part(t, c)
			})
		}
	})
	// These change the world for all.
	t.Run("conditions are taints", func(t *testing.T) { conditionTaints(t, c) })
	t.Run("a silent node is not ready", func(t *testing.T) { silentNode(t, c) })
	t.Run("pods of a node that is gone are collected", func(t *testing.T) { podOfGoneNode(t, c, lost) })
	t.Run("a second term of the same process", func(t *testing.T) { secondTerm(t, c) })
	t.Run("no range is left", func(t *testing.T) { exhaustion(t, c) })
}

func namespaces(t *testing.T, c *cluster) {
	ctx, ns := t.Context(), c.namespace(t, "ns")
	await(t, "kube-root-ca.crt holds the CA", func() (bool, string) {
		m, err := c.CoreV1().ConfigMaps(ns).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return err == nil && m.Data["ca.crt"] == string(c.bundle.CACert()), fmt.Sprint(err)
	})
	must[*corev1.ConfigMap](t)(c.CoreV1().ConfigMaps(ns).Update(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kube-root-ca.crt"}, Data: map[string]string{"ca.crt": "forged"}}, metav1.UpdateOptions{}))
	await(t, "a forged kube-root-ca.crt is put right", func() (bool, string) {
		m, err := c.CoreV1().ConfigMaps(ns).Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return err == nil && m.Data["ca.crt"] == string(c.bundle.CACert()), fmt.Sprint(err)
	})
	must[*corev1.ConfigMap](t)(c.CoreV1().ConfigMaps(ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "m"}}, metav1.CreateOptions{}))
	c.placed(t, c.pod(t, ns, "p", nil))
	must[any](t)(nil, c.CoreV1().Namespaces().Delete(ctx, ns, metav1.DeleteOptions{}))
	await(t, "the namespace is gone", func() (bool, string) {
		n, err := c.CoreV1().Namespaces().Get(ctx, ns, metav1.GetOptions{})
		return apierrors.IsNotFound(err), fmt.Sprint(n.Status, err)
	})
	list := must[*corev1.ConfigMapList](t)(c.CoreV1().ConfigMaps(ns).List(ctx, metav1.ListOptions{}))
	if len(list.Items) != 0 {
		t.Errorf("%d ConfigMaps survive their namespace", len(list.Items))
	}
}

// family makes an owner and one it owns.
func family(t *testing.T, c *cluster, ns string) {
	t.Helper()
	owner := must[*corev1.ConfigMap](t)(c.CoreV1().ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "owner"}}, metav1.CreateOptions{}))
	must[*corev1.Secret](t)(c.CoreV1().Secrets(ns).Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "owned", OwnerReferences: []metav1.OwnerReference{
		{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID, BlockOwnerDeletion: ptr.To(true)}}}}, metav1.CreateOptions{}))
}

func deleteOwner(t *testing.T, c *cluster, ns string, how metav1.DeletionPropagation) {
	t.Helper()
	must[any](t)(nil, c.CoreV1().ConfigMaps(ns).Delete(t.Context(), "owner", metav1.DeleteOptions{PropagationPolicy: &how}))
	await(t, "the owner is gone", func() (bool, string) {
		return gone(c.CoreV1().ConfigMaps(ns).Get(t.Context(), "owner", metav1.GetOptions{}))
	})
}

func backgroundDeletion(t *testing.T, c *cluster) {
	ns := c.namespace(t, "gc-background")
	family(t, c, ns)
	deleteOwner(t, c, ns, metav1.DeletePropagationBackground)
	await(t, "the owned is gone too", func() (bool, string) {
		return gone(c.CoreV1().Secrets(ns).Get(t.Context(), "owned", metav1.GetOptions{}))
	})
}

func foregroundDeletion(t *testing.T, c *cluster) {
	ns := c.namespace(t, "gc-foreground")
	family(t, c, ns)
	deleteOwner(t, c, ns, metav1.DeletePropagationForeground)
	if ok, got := gone(c.CoreV1().Secrets(ns).Get(t.Context(), "owned", metav1.GetOptions{})); !ok {
		t.Errorf("the owned outlives its owner: %s", got)
	}
}

func orphanDeletion(t *testing.T, c *cluster) {
	ns := c.namespace(t, "gc-orphan")
	family(t, c, ns)
	deleteOwner(t, c, ns, metav1.DeletePropagationOrphan)
	s := must[*corev1.Secret](t)(c.CoreV1().Secrets(ns).Get(t.Context(), "owned", metav1.GetOptions{}))
	if len(s.OwnerReferences) != 0 {
		t.Errorf("the orphan still names its owner: %v", s.OwnerReferences)
	}
}

func deployment(name string, replicas int32) *appsv1.Deployment {
	labels := map[string]string{"app": name}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "example:1"}}, TerminationGracePeriodSeconds: ptr.To(int64(0))}}},
	}
}

func deployments(t *testing.T, c *cluster) {
	ctx, ns := t.Context(), c.namespace(t, "deploy")
	images := func() (string, error) {
		pods, err := c.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{})
		var all []string
		for _, p := range pods.Items {
			if p.Spec.NodeName != "" {
				all = append(all, p.Spec.Containers[0].Image)
			}
		}
		return strings.Join(all, " "), err
	}
	d := must[*appsv1.Deployment](t)(c.AppsV1().Deployments(ns).Create(ctx, deployment("web", 2), metav1.CreateOptions{}))
	await(t, "two pods of version 1, bound", func() (bool, string) {
		got, err := images()
		return err == nil && got == "example:1 example:1", got
	})
	await(t, "the status tells", func() (bool, string) {
		d, _ = c.AppsV1().Deployments(ns).Get(ctx, "web", metav1.GetOptions{})
		return d.Status.Replicas == 2 && d.Status.ObservedGeneration == d.Generation, fmt.Sprint(d.Status)
	})
	must[any](t)(nil, c.AppsV1().Deployments(ns).Delete(ctx, "web", metav1.DeleteOptions{PropagationPolicy: ptr.To(metav1.DeletePropagationBackground)}))
	await(t, "its pods are collected", func() (bool, string) {
		got, err := images()
		return err == nil && got == "", got
	})
}

func services(t *testing.T, c *cluster) {
	ctx, ns := t.Context(), c.namespace(t, "svc")
	must[*corev1.Service](t)(c.CoreV1().Services(ns).Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"}, Ports: []corev1.ServicePort{{Port: 80}}}}, metav1.CreateOptions{}))
	p := c.pod(t, ns, "web", nil)
	c.placed(t, p)
	await(t, "the pod is ready", func() (bool, string) {
		p, _ = c.CoreV1().Pods(ns).Get(ctx, "web", metav1.GetOptions{})
		p.Status.Phase, p.Status.PodIPs = corev1.PodRunning, []corev1.PodIP{{IP: "10.42.0.9"}}
		p.Status.PodIP = "10.42.0.9"
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue})
		_, err := c.CoreV1().Pods(ns).UpdateStatus(ctx, p, metav1.UpdateOptions{})
		return err == nil, fmt.Sprint(err)
	})
	await(t, "its EndpointSlice", func() (bool, string) {
		l, err := c.DiscoveryV1().EndpointSlices(ns).List(ctx, metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=web"})
		return err == nil && len(l.Items) == 1 && len(l.Items[0].Endpoints) == 1 && l.Items[0].Endpoints[0].Addresses[0] == "10.42.0.9", fmt.Sprint(l.Items, err)
	})
	await(t, "its Endpoints", func() (bool, string) {
		e, err := c.CoreV1().Endpoints(ns).Get(ctx, "web", metav1.GetOptions{})
		return err == nil && len(e.Subsets) == 1 && e.Subsets[0].Addresses[0].IP == "10.42.0.9", fmt.Sprint(e, err)
	})
}

func tokenSecrets(t *testing.T, c *cluster) {
	ctx, ns := t.Context(), c.namespace(t, "tokens")
	must[*corev1.Secret](t)(c.CoreV1().Secrets(ns).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "t",
		Annotations: map[string]string{corev1.ServiceAccountNameKey: "default"}}, Type: corev1.SecretTypeServiceAccountToken}, metav1.CreateOptions{}))
	await(t, "token and CA", func() (bool, string) {
		s, err := c.CoreV1().Secrets(ns).Get(ctx, "t", metav1.GetOptions{})
		return err == nil && len(s.Data["token"]) > 0 && string(s.Data["ca.crt"]) == string(c.bundle.CACert()), fmt.Sprint(s.Data, err)
	})
}

func volumes(t *testing.T, c *cluster) {
	ctx, ns := t.Context(), c.namespace(t, "volumes")
	must[*storagev1.StorageClass](t)(c.StorageV1().StorageClasses().Create(ctx, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "local"},
		Provisioner: "kubernetes.io/no-provisioner", VolumeBindingMode: ptr.To(storagev1.VolumeBindingWaitForFirstConsumer)}, metav1.CreateOptions{}))
	gib := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
	must[*corev1.PersistentVolume](t)(c.CoreV1().PersistentVolumes().Create(ctx, &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "disk-of-n2"},
		Spec: corev1.PersistentVolumeSpec{Capacity: gib, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: "local",
			PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: "/mnt/d"}},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
				{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "disk", Operator: corev1.NodeSelectorOpIn, Values: []string{"ssd"}}}}}}}}}, metav1.CreateOptions{}))
	must[*corev1.PersistentVolumeClaim](t)(c.CoreV1().PersistentVolumeClaims(ns).Create(ctx, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Name: "data"},
		Spec: corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: ptr.To("local"),
			Resources: corev1.VolumeResourceRequirements{Requests: gib}}}, metav1.CreateOptions{}))
	p := c.pod(t, ns, "user", func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
	})
	if n := c.placed(t, p); n != "n2" {
		t.Errorf("placed on %s; the volume is on n2", n)
	}
	await(t, "the claim is bound", func() (bool, string) {
		pvc, err := c.CoreV1().PersistentVolumeClaims(ns).Get(ctx, "data", metav1.GetOptions{})
		return err == nil && pvc.Status.Phase == corev1.ClaimBound && pvc.Spec.VolumeName == "disk-of-n2", fmt.Sprint(pvc.Status, err)
	})
	must[any](t)(nil, c.CoreV1().PersistentVolumeClaims(ns).Delete(ctx, "data", metav1.DeleteOptions{}))
	must[*corev1.PersistentVolumeClaim](t)(c.CoreV1().PersistentVolumeClaims(ns).Get(ctx, "data", metav1.GetOptions{})) // a pod uses it
	must[any](t)(nil, c.CoreV1().Pods(ns).Delete(ctx, "user", metav1.DeleteOptions{}))
	await(t, "the claim goes after its pod", func() (bool, string) {
		return gone(c.CoreV1().PersistentVolumeClaims(ns).Get(ctx, "data", metav1.GetOptions{}))
	})
	await(t, "the volume is released", func() (bool, string) {
		v, err := c.CoreV1().PersistentVolumes().Get(ctx, "disk-of-n2", metav1.GetOptions{})
		return err == nil && v.Status.Phase == corev1.VolumeReleased, fmt.Sprint(v.Status, err)
	})
}

func budgets(t *testing.T, c *cluster) {
	ctx, ns := t.Context(), c.namespace(t, "pdb")
	must[*policyv1.PodDisruptionBudget](t)(c.PolicyV1().PodDisruptionBudgets(ns).Create(ctx, &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec: policyv1.PodDisruptionBudgetSpec{MaxUnavailable: ptr.To(intstr.FromInt32(1)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}}, metav1.CreateOptions{}))
	must[*appsv1.Deployment](t)(c.AppsV1().Deployments(ns).Create(ctx, deployment("web", 2), metav1.CreateOptions{}))
	await(t, "2 expected pods", func() (bool, string) {
		b, err := c.PolicyV1().PodDisruptionBudgets(ns).Get(ctx, "web", metav1.GetOptions{})
		return err == nil && b.Status.ExpectedPods == 2 && b.Status.DesiredHealthy == 1, fmt.Sprint(b.Status, err)
	})
}

func aggregation(t *testing.T, c *cluster) {
	await(t, "admin has the rules of edit and view", func() (bool, string) {
		r, err := c.RbacV1().ClusterRoles().Get(t.Context(), "admin", metav1.GetOptions{})
		return err == nil && len(r.Rules) > 5, fmt.Sprint(len(r.Rules), err)
	})
}

func nodeRanges(t *testing.T, c *cluster) {
	for _, name := range []string{"n1", "n2"} {
		await(t, "range and route of "+name, func() (bool, string) {
			n, err := c.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
			if err != nil || !strings.HasPrefix(n.Spec.PodCIDR, "10.42.") || !strings.HasSuffix(n.Spec.PodCIDR, "/24") {
				return false, fmt.Sprint(n.Spec, err)
			}
			m, err := c.CoreV1().ConfigMaps("everynode-system").Get(t.Context(), "node-routes-000", metav1.GetOptions{})
			return err == nil && m.Data[strings.Replace(n.Spec.PodCIDR, "/", "-", 1)] == n.Status.Addresses[0].Address, fmt.Sprint(m.Data, err)
		})
	}
}

// nodeAccess reads as a node does.
func nodeAccess(t *testing.T, c *cluster) {
	cfg := rest.CopyConfig(c.config)
	cfg.Impersonate = rest.ImpersonationConfig{UserName: "system:node:n1", Groups: []string{"system:nodes", "system:authenticated"}}
	node := must[*kubernetes.Clientset](t)(kubernetes.NewForConfig(cfg))
	one := metav1.ListOptions{FieldSelector: "metadata.name=kubernetes"}
	slices := node.DiscoveryV1().EndpointSlices
	for what, try := range map[string]struct {
		read    func(ctx context.Context) error
		allowed bool
	}{
		"list the routes": {func(ctx context.Context) error {
			_, err := node.CoreV1().ConfigMaps("everynode-system").List(ctx, metav1.ListOptions{})
			return err
		}, true},
		"watch the routes": {func(ctx context.Context) error {
			w, err := node.CoreV1().ConfigMaps("everynode-system").Watch(ctx, metav1.ListOptions{})
			if err == nil {
				w.Stop()
			}
			return err
		}, true},
		"list the EndpointSlice kubernetes": {func(ctx context.Context) error { _, err := slices("default").List(ctx, one); return err }, true},
		"watch the EndpointSlice kubernetes": {func(ctx context.Context) error {
			w, err := slices("default").Watch(ctx, one)
			if err == nil {
				w.Stop()
			}
			return err
		}, true},
		"list all EndpointSlices of default": {func(ctx context.Context) error {
			_, err := slices("default").List(ctx, metav1.ListOptions{})
			return err
		}, false},
		"list Secrets of everynode-system": {func(ctx context.Context) error {
			_, err := node.CoreV1().Secrets("everynode-system").List(ctx, metav1.ListOptions{})
			return err
		}, false},
		"write the routes": {func(ctx context.Context) error {
			_, err := node.CoreV1().ConfigMaps("everynode-system").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "node-routes-999"}}, metav1.CreateOptions{})
			return err
		}, false},
	} {
		if !try.allowed {
			if err := try.read(t.Context()); !apierrors.IsForbidden(err) {
				t.Errorf("a node may %s: %v", what, err)
			}
			continue
		}
		await(t, "a node may "+what, func() (bool, string) {
			err := try.read(t.Context())
			return err == nil, fmt.Sprint(err)
		})
	}
}

func signing(t *testing.T, c *cluster) {
	ctx := t.Context()
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	der := must[[]byte](t)(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "jane"}}, key))
	api := c.CertificatesV1().CertificateSigningRequests()
	csr := must[*certificatesv1.CertificateSigningRequest](t)(api.Create(ctx, &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "jane"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
			SignerName: certificatesv1.KubeAPIServerClientSignerName, Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth}},
	}, metav1.CreateOptions{}))
	csr.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Test"}}
	must[*certificatesv1.CertificateSigningRequest](t)(api.UpdateApproval(ctx, "jane", csr, metav1.UpdateOptions{}))
	await(t, "the certificate", func() (bool, string) {
		csr, err := api.Get(ctx, "jane", metav1.GetOptions{})
		return err == nil && len(csr.Status.Certificate) > 0, fmt.Sprint(csr.Status, err)
	})
}

// podOfGoneNode was made long ago: upstream looks every 20 s, and waits 40 s for a node to come back.
func podOfGoneNode(t *testing.T, c *cluster, lost *corev1.Pod) {
	await(t, "the pod of a node that does not exist is gone", func() (bool, string) {
		return gone(c.CoreV1().Pods(lost.Namespace).Get(t.Context(), lost.Name, metav1.GetOptions{}))
	})
}

func silentNode(t *testing.T, c *cluster) {
	ctx, ns := t.Context(), c.namespace(t, "silent")
	die := c.node(t, "n3", map[string]string{"zone": "c"})
	c.pod(t, ns, "leaves", func(p *corev1.Pod) {
		p.Spec.NodeName = "n3"
		p.Spec.Tolerations = []corev1.Toleration{{Key: corev1.TaintNodeUnreachable, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: ptr.To(int64(1))}}
	})
	c.pod(t, ns, "stays", func(p *corev1.Pod) {
		p.Spec.NodeName = "n3"
		p.Spec.Tolerations = []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	})
	await(t, "a pod is ready", func() (bool, string) {
		_, err := c.CoreV1().Pods(ns).Patch(ctx, "stays", types.StrategicMergePatchType, []byte(`{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}`), metav1.PatchOptions{}, "status")
		return err == nil, fmt.Sprint(err)
	})
	die()
	await(t, "n3 is unknown and tainted", func() (bool, string) {
		n, err := c.CoreV1().Nodes().Get(ctx, "n3", metav1.GetOptions{})
		taints := fmt.Sprint(n.Spec.Taints)
		return err == nil && n.Status.Conditions[0].Status == corev1.ConditionUnknown &&
			strings.Contains(taints, "node.kubernetes.io/unreachable  NoSchedule") && strings.Contains(taints, "node.kubernetes.io/unreachable  NoExecute"), taints
	})
	await(t, "its pod is evicted", func() (bool, string) { return gone(c.CoreV1().Pods(ns).Get(ctx, "leaves", metav1.GetOptions{})) })
	must[*corev1.Pod](t)(c.CoreV1().Pods(ns).Get(ctx, "stays", metav1.GetOptions{}))
	n := must[*corev1.Node](t)(c.CoreV1().Nodes().Get(ctx, "n1", metav1.GetOptions{}))
	if len(n.Spec.Taints) != 0 {
		t.Errorf("n1, which is well, has taints %v", n.Spec.Taints)
	}
	stays := must[*corev1.Pod](t)(c.CoreV1().Pods(ns).Get(ctx, "stays", metav1.GetOptions{}))
	if r := readyOf(stays); r != corev1.ConditionFalse {
		t.Errorf("a pod of a silent node has Ready %q", r)
	}

	c.alive(t, "n3")
	await(t, "n3 is untainted when it is back", func() (bool, string) {
		n, err := c.CoreV1().Nodes().Get(ctx, "n3", metav1.GetOptions{})
		return err == nil && len(n.Spec.Taints) == 0, fmt.Sprint(n.Spec.Taints, err)
	})
	must[*corev1.Pod](t)(c.CoreV1().Pods(ns).Get(ctx, "stays", metav1.GetOptions{}))
}

func readyOf(p *corev1.Pod) corev1.ConditionStatus {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status
		}
	}
	return ""
}

// conditionTaints: what a node says of itself, and a cordon, are taints at once. A node which has said nothing is
// not for pods.
func conditionTaints(t *testing.T, c *cluster) {
	ctx := t.Context()
	taints := func(name, want string) func() (bool, string) {
		return func() (bool, string) {
			n, err := c.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
			var got []string
			for _, t := range n.Spec.Taints {
				got = append(got, t.ToString())
			}
			return err == nil && strings.Join(got, " ") == want, fmt.Sprint(got, err)
		}
	}
	c.node(t, "n4", map[string]string{"kubernetes.io/os": "linux", "pool": "tainted"})
	await(t, "n4 has no taint when ready", taints("n4", ""))
	must[*corev1.Node](t)(c.CoreV1().Nodes().Patch(ctx, "n4", types.StrategicMergePatchType, []byte(`{"status":{"conditions":[{"type":"DiskPressure","status":"True"}]}}`), metav1.PatchOptions{}, "status"))
	await(t, "disk pressure is a taint", taints("n4", "node.kubernetes.io/disk-pressure:NoSchedule"))
	must[*corev1.Node](t)(c.CoreV1().Nodes().Patch(ctx, "n4", types.StrategicMergePatchType, []byte(`{"status":{"conditions":[{"type":"DiskPressure","status":"False"}]}}`), metav1.PatchOptions{}, "status"))
	must[*corev1.Node](t)(c.CoreV1().Nodes().Patch(ctx, "n4", types.MergePatchType, []byte(`{"spec":{"unschedulable":true}}`), metav1.PatchOptions{}))
	await(t, "a cordon is a taint", taints("n4", "node.kubernetes.io/unschedulable:NoSchedule"))
	n := must[*corev1.Node](t)(c.CoreV1().Nodes().Get(ctx, "n4", metav1.GetOptions{}))
	if n.Labels["beta.kubernetes.io/os"] != "linux" {
		t.Errorf("labels %v: older manifests select by beta.kubernetes.io/os", n.Labels)
	}

	must[*corev1.Node](t)(c.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "mere-name"}}, metav1.CreateOptions{}))
	must[*corev1.Node](t)(c.CoreV1().Nodes().Patch(ctx, "mere-name", types.MergePatchType, []byte(`{"metadata":{"labels":{"kubernetes.io/os":"linux"}}}`), metav1.PatchOptions{}))
	await(t, "the node that says nothing has been looked at", func() (bool, string) {
		n, err := c.CoreV1().Nodes().Get(ctx, "mere-name", metav1.GetOptions{})
		return err == nil && n.Labels["beta.kubernetes.io/os"] == "linux", fmt.Sprint(n.Labels, err)
	})
	await(t, "it keeps the taint of its admission", taints("mere-name", "node.kubernetes.io/not-ready:NoSchedule"))
	must[any](t)(nil, c.CoreV1().Nodes().Delete(ctx, "mere-name", metav1.DeleteOptions{}))
}

// secondTerm loses the lease and gains it again: nothing of the first term may be in the way.
func secondTerm(t *testing.T, c *cluster) {
	c.depose(errors.New("planted loss"))
	select {
	case <-c.terms:
	case <-time.After(20 * time.Second):
		t.Fatal("no second term")
	}
	ns := c.namespace(t, "second")
	must[*appsv1.Deployment](t)(c.AppsV1().Deployments(ns).Create(t.Context(), deployment("web", 1), metav1.CreateOptions{}))
	await(t, "a deployment's pod is bound", func() (bool, string) {
		l, err := c.CoreV1().Pods(ns).List(t.Context(), metav1.ListOptions{})
		return err == nil && len(l.Items) == 1 && l.Items[0].Spec.NodeName != "", fmt.Sprint(len(l.Items), err)
	})
	family(t, c, ns)
	deleteOwner(t, c, ns, metav1.DeletePropagationForeground)
}

// exhaustion adds nodes until there are more than ranges (16).
func exhaustion(t *testing.T, c *cluster) {
	ctx := t.Context()
	atOnce := 0
	for i := range 18 {
		n := must[*corev1.Node](t)(c.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("many-%02d", i)}}, metav1.CreateOptions{}))
		if n.Spec.PodCIDR != "" {
			atOnce++
		}
	}
	if atOnce < 2 {
		t.Errorf("%d of 18 nodes had their range as they were created", atOnce)
	}
	without := map[string]bool{}
	await(t, "16 ranges are given", func() (bool, string) {
		l, err := c.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
		clear(without)
		seen := map[string]bool{}
		for _, n := range l.Items {
			if n.Spec.PodCIDR == "" {
				without[n.Name] = true
			} else if seen[n.Spec.PodCIDR] {
				t.Fatalf("range %s is given twice", n.Spec.PodCIDR)
			}
			seen[n.Spec.PodCIDR] = true
		}
		return err == nil && len(l.Items)-len(without) == 16, fmt.Sprint(len(l.Items), " nodes, without a range: ", without)
	})
	await(t, "one event on each node without one", func() (bool, string) {
		l, err := c.CoreV1().Events("").List(ctx, metav1.ListOptions{FieldSelector: "reason=CIDRNotAvailable"})
		for _, e := range l.Items {
			if !without[e.InvolvedObject.Name] {
				return false, "an event on " + e.InvolvedObject.Name
			}
		}
		return err == nil && len(l.Items) == len(without), fmt.Sprint(len(l.Items), " events for ", len(without), " nodes ", err)
	})
}
