package direct

import (
	"context"
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/apihelpers"
	"k8s.io/apiserver/pkg/util/dryrun"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install" // the scheme that converts, defaults and encodes
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
)

// Pods is what the Writer needs of the pod registry; upstream's *podstore.REST is one.
type Pods interface {
	rest.Creater //nolint:misspell // upstream's name
	rest.GracefulDeleter
}

// Options are what a Writer writes through.
type Options struct {
	// Pods is the registry of resource pods.
	Pods Pods
	// DaemonSetStatus is the registry of subresource daemonsets/status.
	DaemonSetStatus rest.Updater
	// Admission is the server's whole admission chain (genericapiserver.Config.AdmissionControl).
	Admission admission.Interface
	// AuditBackend and AuditPolicyEvaluator are the server's own. Without either nothing is audited.
	AuditBackend         audit.Sink
	AuditPolicyEvaluator audit.PolicyRuleEvaluator
	// User is who the writes are attributed to in audit events and admission.
	// The default is ControllerUser().
	User user.Info
}

// Validate tells which part is missing.
func (o *Options) Validate() error {
	switch {
	case o.Pods == nil:
		return errors.New("direct writer: no pod registry")
	case o.DaemonSetStatus == nil:
		return errors.New("direct writer: no daemonsets/status registry")
	case o.Admission == nil:
		return errors.New("direct writer: no admission chain: writes would go unchecked")
	}
	return nil
}

// ControllerUser is the name under which the server's own controllers write: the service account that upstream's
// DaemonSet controller uses, so that audit policies written for Kubernetes match.
func ControllerUser() user.Info {
	return controllerUser("daemon-set-controller")
}

// controllerUser is a controller's service account of upstream's.
func controllerUser(name string) user.Info {
	u := serviceaccount.UserInfo(metav1.NamespaceSystem, name, "")
	return &user.DefaultInfo{Name: u.GetName(), Groups: append(u.GetGroups(), user.AllAuthenticated)}
}

// Writer writes to the registries of this process. It is safe for concurrent use.
type Writer struct {
	o       Options
	objects admission.ObjectInterfaces
}

// New makes a Writer.
func New(o Options) (*Writer, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if o.User == nil {
		o.User = ControllerUser()
	}
	return &Writer{o: o, objects: admission.NewObjectInterfacesFromScheme(legacyscheme.Scheme)}, nil
}

var (
	podTarget = target{
		kind: corev1.SchemeGroupVersion.WithKind("Pod"), resource: corev1.SchemeGroupVersion.WithResource("pods"), prefix: "/api/v1",
	}
	daemonSetStatusTarget = target{
		kind: appsv1.SchemeGroupVersion.WithKind("DaemonSet"), resource: appsv1.SchemeGroupVersion.WithResource("daemonsets"),
		subresource: "status", prefix: "/apis/apps/v1",
	}
)

// CreatePod creates the pod in its namespace and returns it as stored. Errors are API statuses
// (k8s.io/apimachinery/pkg/api/errors), as a client would get them. The stored pod carries no managedFields:
// field tracking starts when somebody server-side applies to it.
func (w *Writer) CreatePod(ctx context.Context, pod *corev1.Pod) (*corev1.Pod, error) {
	out := &corev1.Pod{}
	c := w.call(ctx, podTarget, "create", pod.Namespace, pod.Name)
	err := c.run(func(ctx context.Context) (runtime.Object, error) {
		obj := &core.Pod{}
		if err := internalize(pod.DeepCopy(), obj); err != nil {
			return nil, err
		}
		return w.create(ctx, c, obj)
	}, out)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// create is the middle of the create handler, from the decoded object to the stored one.
func (w *Writer) create(ctx context.Context, c *call, obj *core.Pod) (runtime.Object, error) {
	options := &metav1.CreateOptions{}
	options.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("CreateOptions"))
	audit.LogRequestObject(ctx, obj, c.kind.GroupVersion(), c.resource, c.subresource, legacyscheme.Codecs)
	rest.WipeObjectMetaSystemFields(obj)
	if err := rest.EnsureObjectNamespaceMatchesRequestNamespace(c.namespace, obj); err != nil {
		return nil, err
	}
	obj.ManagedFields = nil
	admit := admission.WithAudit(w.o.Admission)
	attributes := w.attributes(c, obj, admission.Create, options, dryrun.IsDryRun(options.DryRun))
	if mutating, ok := admit.(admission.MutationInterface); ok && mutating.Handles(admission.Create) {
		if err := mutating.Admit(ctx, attributes, w.objects); err != nil {
			return nil, err
		}
	}
	return w.o.Pods.Create(ctx, obj, rest.AdmissionToValidateObjectFunc(admit, attributes, w.objects), options)
}

// DeletePod deletes a pod as the API does: with its grace period unless o says otherwise, and only if o's
// preconditions hold.
func (w *Writer) DeletePod(ctx context.Context, namespace, name string, o metav1.DeleteOptions) error {
	options := o.DeepCopy()
	c := w.call(ctx, podTarget, "delete", namespace, name)
	return c.run(func(ctx context.Context) (runtime.Object, error) {
		options.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("DeleteOptions"))
		options.IgnoreStoreReadErrorWithClusterBreakingPotential = nil
		audit.LogRequestObject(ctx, options, metav1.SchemeGroupVersion, c.resource, c.subresource, apihelpers.GetMetaInternalVersionCodecs())
		if errs := metavalidation.ValidateDeleteOptions(options); len(errs) > 0 {
			return nil, apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "DeleteOptions"}, "", errs)
		}
		attributes := w.attributes(c, nil, admission.Delete, options, dryrun.IsDryRun(options.DryRun))
		validate := rest.AdmissionToValidateObjectDeleteFunc(admission.WithAudit(w.o.Admission), attributes, w.objects)
		deleted, _, err := w.o.Pods.Delete(ctx, name, validate, options)
		return deleted, err
	}, nil)
}

// UpdateDaemonSetStatus writes the status of ds, and nothing else of it, and returns the DaemonSet as stored. A
// resourceVersion in ds makes the write conditional on it; so does a UID. The stored managedFields stay as they
// are: a controller's own status gets no entry there.
func (w *Writer) UpdateDaemonSetStatus(ctx context.Context, ds *appsv1.DaemonSet) (*appsv1.DaemonSet, error) {
	out := &appsv1.DaemonSet{}
	c := w.call(ctx, daemonSetStatusTarget, "update", ds.Namespace, ds.Name)
	err := c.run(func(ctx context.Context) (runtime.Object, error) {
		obj := &apps.DaemonSet{}
		if err := internalize(ds.DeepCopy(), obj); err != nil {
			return nil, err
		}
		return w.updateStatus(ctx, c, obj)
	}, out)
	if err != nil {
		return nil, err
	}
	return out, nil
}

// updateStatus is the middle of the update handler, from the decoded object to the stored one.
func (w *Writer) updateStatus(ctx context.Context, c *call, obj *apps.DaemonSet) (runtime.Object, error) {
	options := &metav1.UpdateOptions{}
	options.SetGroupVersionKind(metav1.SchemeGroupVersion.WithKind("UpdateOptions"))
	audit.LogRequestObject(ctx, obj, c.kind.GroupVersion(), c.resource, c.subresource, legacyscheme.Codecs)
	if err := rest.EnsureObjectNamespaceMatchesRequestNamespace(c.namespace, obj); err != nil {
		return nil, err
	}
	admit := admission.WithAudit(w.o.Admission)
	dry := dryrun.IsDryRun(options.DryRun)
	info := rest.DefaultUpdatedObjectInfo(obj, keepManagedFields, w.admitUpdate(admit, c, options, dry))
	stored, _, err := w.o.DaemonSetStatus.Update(ctx, c.name, info, refuseCreate,
		rest.AdmissionToValidateObjectUpdateFunc(admit, w.attributes(c, nil, admission.Update, options, dry), w.objects), false, options)
	return stored, err
}

func (w *Writer) admitUpdate(admit admission.Interface, c *call, options *metav1.UpdateOptions, dryRun bool) rest.TransformFunc {
	mutating, ok := admit.(admission.MutationInterface)
	return func(ctx context.Context, obj, old runtime.Object) (runtime.Object, error) {
		if !ok || !mutating.Handles(admission.Update) {
			return obj, nil
		}
		attributes := admission.NewAttributesRecord(obj, old, c.kind, c.namespace, c.name, c.resource, c.subresource,
			admission.Update, options, dryRun, w.o.User)
		return obj, mutating.Admit(ctx, attributes, w.objects)
	}
}

// keepManagedFields carries what others own over a write that tracks no fields.
func keepManagedFields(_ context.Context, obj, old runtime.Object) (runtime.Object, error) {
	to, ok := obj.(metav1.Object)
	if !ok {
		return nil, fmt.Errorf("no metadata in %T", obj)
	}
	from, ok := old.(metav1.Object)
	if !ok {
		return nil, fmt.Errorf("no metadata in %T", old)
	}
	to.SetManagedFields(from.GetManagedFields())
	return obj, nil
}

// refuseCreate stands where an update that may create would authorize and admit the create; status never does.
func refuseCreate(context.Context, runtime.Object) error {
	return apierrors.NewInternalError(errors.New("a status update may not create its object"))
}

func (w *Writer) attributes(c *call, obj runtime.Object, op admission.Operation, options runtime.Object, dryRun bool) admission.Attributes {
	return admission.NewAttributesRecord(obj, nil, c.kind, c.namespace, c.name, c.resource, c.subresource, op, options, dryRun, w.o.User)
}

// internalize defaults a versioned object and converts it, as decoding a request does. The conversion shares
// memory with its source, so callers pass a copy of their own.
func internalize(versioned, internal runtime.Object) error {
	legacyscheme.Scheme.Default(versioned)
	if err := legacyscheme.Scheme.Convert(versioned, internal, nil); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	return nil
}
