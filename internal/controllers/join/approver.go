package join

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	listers "k8s.io/client-go/listers/certificates/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
)

const (
	// AnnotationCSR on a Node names the request that reserved its name.
	AnnotationCSR = "everynode.io/join-csr"
	// AnnotationKey on a Node is the hex sha256 of the public key (SubjectPublicKeyInfo) that its name was last
	// given to.
	AnnotationKey = "everynode.io/join-key"
)

// Options are what an Approver works with.
type Options struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	// ServiceCIDR is the range of service addresses; no node gets a certificate for one. Nil: no such check.
	ServiceCIDR *net.IPNet
}

// Validate tells which part is missing.
func (o *Options) Validate() error {
	if o.Client == nil || o.Informers == nil {
		return errors.New("join approver: needs a client and informers")
	}
	return nil
}

// Approver approves and denies node certificates.
type Approver struct {
	client   kubernetes.Interface
	services *net.IPNet
	lister   listers.CertificateSigningRequestLister
	synced   cache.InformerSynced
	queue    workqueue.TypedRateLimitingInterface[string]
}

// New makes an Approver. Its informer is requested here, so the factory may be started any time after.
func New(o Options) (*Approver, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	csrs := o.Informers.Certificates().V1().CertificateSigningRequests()
	a := &Approver{
		client: o.Client, services: o.ServiceCIDR, lister: csrs.Lister(), synced: csrs.Informer().HasSynced,
		queue: workqueue.NewTypedRateLimitingQueueWithConfig(
			workqueue.NewTypedItemExponentialFailureRateLimiter[string](50*time.Millisecond, time.Minute),
			workqueue.TypedRateLimitingQueueConfig[string]{Name: "join"}),
	}
	if _, err := csrs.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    a.enqueue,
		UpdateFunc: func(_, obj any) { a.enqueue(obj) },
	}); err != nil {
		return nil, fmt.Errorf("join approver: watch certificate requests: %w", err)
	}
	return a, nil
}

func (a *Approver) enqueue(obj any) {
	if csr, ok := obj.(*certificatesv1.CertificateSigningRequest); ok && concerns(csr) && !settled(csr) {
		a.queue.Add(csr.Name)
	}
}

// Run judges requests until ctx ends.
func (a *Approver) Run(ctx context.Context) error {
	defer a.queue.ShutDown()
	if !cache.WaitForCacheSync(ctx.Done(), a.synced) {
		return nil
	}
	stop := context.AfterFunc(ctx, a.queue.ShutDown)
	defer stop()
	for a.next(ctx) {
	}
	return nil
}

func (a *Approver) next(ctx context.Context) bool {
	name, down := a.queue.Get()
	if down {
		return false
	}
	defer a.queue.Done(name)
	if err := a.sync(ctx, name); err != nil {
		if ctx.Err() == nil {
			klog.FromContext(ctx).Error(err, "certificate request not judged; will try again", "csr", name)
		}
		a.queue.AddRateLimited(name)
		return true
	}
	a.queue.Forget(name)
	return true
}

// sync gives one request its answer, if it has none yet.
func (a *Approver) sync(ctx context.Context, name string) error {
	csr, err := a.lister.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if !concerns(csr) || settled(csr) {
		return nil
	}
	message, refused, err := a.judge(ctx, csr)
	if err != nil {
		return err
	}
	return a.answer(ctx, csr, message, refused)
}

// judge returns why the request is approved, or a refusal. An error means that it cannot be told yet.
func (a *Approver) judge(ctx context.Context, csr *certificatesv1.CertificateSigningRequest) (string, *refusal, error) {
	r, refused := read(csr)
	if refused != nil {
		return "", refused, nil
	}
	serving := csr.Spec.SignerName == certificatesv1.KubeletServingSignerName
	switch {
	case isNode(csr) && csr.Spec.Username != nodeUserPrefix+r.node:
		return "", refuse("NotItself", "%s may not have a certificate of node %q", csr.Spec.Username, r.node), nil
	case isNode(csr) && serving:
		return a.judgeServing(ctx, r)
	case isNode(csr):
		return a.judgeRenewal(ctx, r)
	case serving:
		return "", refuse("NotItself", "a join token is not good for a serving certificate: ask as node %q, with its client certificate", r.node), nil
	default:
		return a.judgeJoin(ctx, r)
	}
}

// judgeJoin reserves the name for the requester's key.
func (a *Approver) judgeJoin(ctx context.Context, r *request) (string, *refusal, error) {
	if refused := r.checkClientNames(); refused != nil {
		return "", refused, nil
	}
	nodes := a.client.CoreV1().Nodes()
	_, err := nodes.Create(ctx, r.reservation(metav1.Now()), metav1.CreateOptions{})
	switch {
	case err == nil:
		return fmt.Sprintf("the name %q was free and is reserved for this machine", r.node), nil, nil
	case apierrors.IsInvalid(err):
		return "", refuse("InvalidNodeName", "%q cannot be a node's name: %v", r.node, err), nil
	case !apierrors.IsAlreadyExists(err):
		return "", nil, fmt.Errorf("reserve node name %s: %w", r.node, err)
	}
	node, err := nodes.Get(ctx, r.node, metav1.GetOptions{})
	if err != nil { // deleted just now: the next try may reserve it
		return "", nil, fmt.Errorf("look up who holds node name %s: %w", r.node, err)
	}
	if node.DeletionTimestamp == nil && node.Annotations[AnnotationKey] == r.keyHash() {
		return fmt.Sprintf("the name %q is reserved for this machine's key", r.node), nil, nil
	}
	return "", refuse("NodeNameTaken", "node name %q is taken: a Node of that name exists. If that machine is gone, or lost its identity, free the name with "+
		"`kubectl delete node %s`; otherwise choose another with --node-name", r.node, r.node), nil
}

// reservation is the Node that holds a name for the requester's key. What the machine is like is its agent's to say;
// only that it is not ready is said here, or else the node lifecycle controller, which derives taints from
// conditions, would take away the taint that admission gives a new node, and pods would be sent to a mere name.
func (r *request) reservation(now metav1.Time) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: r.node, Annotations: map[string]string{AnnotationCSR: r.csr.Name, AnnotationKey: r.keyHash()}},
		Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{
			Type: corev1.NodeReady, Status: corev1.ConditionFalse, LastHeartbeatTime: now, LastTransitionTime: now,
			Reason: "Joining", Message: "the name is reserved; the machine's agent has not reported yet",
		}}},
	}
}

// judgeRenewal lets a node that still is one go on, and remembers its new key: should the certificate run out while
// the machine is off, a join token and that key let it back in under its name.
func (a *Approver) judgeRenewal(ctx context.Context, r *request) (string, *refusal, error) {
	if refused := r.checkClientNames(); refused != nil {
		return "", refused, nil
	}
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, AnnotationKey, r.keyHash())
	_, err := a.client.CoreV1().Nodes().Patch(ctx, r.node, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		return "", nodeGone(r.node), nil
	}
	if err != nil {
		return "", nil, fmt.Errorf("remember the key of node %s: %w", r.node, err)
	}
	return "the node renews its own client certificate", nil, nil
}

func (a *Approver) judgeServing(ctx context.Context, r *request) (string, *refusal, error) {
	node, err := a.client.CoreV1().Nodes().Get(ctx, r.node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", nodeGone(r.node), nil
	}
	if err != nil {
		return "", nil, fmt.Errorf("look up node %s: %w", r.node, err)
	}
	if refused := r.checkServingNames(node, a.services); refused != nil {
		return "", refused, nil
	}
	return "the names and addresses are the node's own", nil, nil
}

func nodeGone(name string) *refusal {
	return refuse("NodeGone", "there is no Node %q: it was deleted, so the machine has to register or join again", name)
}

// answer records the verdict. A request that was answered or deleted meanwhile needs none.
func (a *Approver) answer(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, message string, refused *refusal) error {
	csr = csr.DeepCopy()
	condition := certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "EverynodeApproved", Message: message, LastUpdateTime: metav1.Now(),
	}
	if refused != nil {
		condition.Type, condition.Reason, condition.Message = certificatesv1.CertificateDenied, refused.reason, refused.message
	}
	csr.Status.Conditions = append(csr.Status.Conditions, condition)
	_, err := a.client.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, csr.Name, csr, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("record the verdict on %s: %w", csr.Name, err)
	}
	klog.FromContext(ctx).Info("certificate request judged", "csr", csr.Name, "signer", csr.Spec.SignerName, "requester", csr.Spec.Username,
		"verdict", condition.Type, "reason", condition.Reason, "message", condition.Message)
	return nil
}
