package apiserver

import (
	"context"
	"errors"
	"fmt"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/component-helpers/auth/rbac/reconciliation"
	"k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy"
)

// roleWorkers is how many roles are written at the same time: a new cluster has about 150 of them, and is not ready
// without.
const roleWorkers = 8

// ensureRoles creates upstream's bootstrap roles and ours, and gives back what somebody took away from one of them,
// unless it is annotated rbac.authorization.kubernetes.io/autoupdate=false.
func (a *assembly) ensureRoles(h genericapiserver.PostStartHookContext) error {
	return retry(h, func(ctx context.Context) error {
		return parallel(ctx, append(a.reconcileClusterRoles(), a.reconcileNamespaceRoles()...))
	})
}

// reconcile brings one role or binding into its state.
type reconcile func() error

// parallel runs all of them, a few at a time, and returns their errors.
func parallel(ctx context.Context, all []reconcile) error {
	var mu sync.Mutex
	var errs []error
	workqueue.ParallelizeUntil(ctx, roleWorkers, len(all), func(i int) {
		if err := all[i](); err != nil {
			mu.Lock()
			defer mu.Unlock()
			errs = append(errs, err)
		}
	})
	return errors.Join(append(errs, ctx.Err())...)
}

func (a *assembly) reconcileClusterRoles() []reconcile {
	var all []reconcile
	client := a.client.RbacV1()
	roles := append(bootstrappolicy.ClusterRoles(), bootstrappolicy.ControllerRoles()...)
	for _, r := range append(roles, metricsReader()) {
		all = append(all, a.role(reconciliation.ClusterRoleRuleOwner{ClusterRole: &r}, reconciliation.ClusterRoleModifier{Client: client.ClusterRoles()}))
	}
	bindings := append(bootstrappolicy.ClusterRoleBindings(), bootstrappolicy.ControllerRoleBindings()...)
	for _, b := range append(bindings, ownBindings()...) {
		all = append(all, a.binding(reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: &b},
			reconciliation.ClusterRoleBindingClientAdapter{Client: client.ClusterRoleBindings()}))
	}
	return all
}

func (a *assembly) reconcileNamespaceRoles() []reconcile {
	var all []reconcile
	client, namespaces := a.client.RbacV1(), a.client.CoreV1().Namespaces()
	for _, roles := range bootstrappolicy.NamespaceRoles() {
		for _, r := range roles {
			all = append(all, a.role(reconciliation.RoleRuleOwner{Role: &r}, reconciliation.RoleModifier{Client: client, NamespaceClient: namespaces}))
		}
	}
	for _, bindings := range bootstrappolicy.NamespaceRoleBindings() {
		for _, b := range bindings {
			all = append(all, a.binding(reconciliation.RoleBindingAdapter{RoleBinding: &b},
				reconciliation.RoleBindingClientAdapter{Client: client, NamespaceClient: namespaces}))
		}
	}
	return all
}

func (a *assembly) role(r reconciliation.RuleOwner, client reconciliation.RuleOwnerModifier) reconcile {
	return func() error {
		if _, err := (&reconciliation.ReconcileRoleOptions{Role: r, Client: client, Confirm: true}).Run(); err != nil {
			return fmt.Errorf("role %s: %w", r.GetName(), err)
		}
		return nil
	}
}

func (a *assembly) binding(b reconciliation.RoleBinding, client reconciliation.RoleBindingModifier) reconcile {
	return func() error {
		if _, err := (&reconciliation.ReconcileRoleBindingOptions{RoleBinding: b, Client: client, Confirm: true}).Run(); err != nil {
			return fmt.Errorf("role binding %s: %w", b.GetName(), err)
		}
		return nil
	}
}

// ownBindings says who of ours has which of upstream's roles.
func ownBindings() []rbacv1.ClusterRoleBinding {
	bind := func(name, role, group string) rbacv1.ClusterRoleBinding {
		return rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: group}},
		}
	}
	return []rbacv1.ClusterRoleBinding{
		// The server itself, towards the agents' own API.
		bind("everynode:kubelet-admins", "system:kubelet-api-admin", kubeletClientGroup),
		// A machine with a join token may ask for a certificate and see whether it got it, and nothing else.
		bind("everynode:node-bootstrappers", "system:node-bootstrapper", "system:bootstrappers:everynode"),
		// A node may renew its own certificate.
		bind("everynode:node-renewal", "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", "system:nodes"),
	}
}
