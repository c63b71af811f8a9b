package routes

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Namespace holds what this project publishes for its nodes. Every node may read its ConfigMaps.
const Namespace = "everynode-system"

// nodesGroup is the group of every node's certificate.
const nodesGroup = "system:nodes"

var readVerbs = []string{"get", "list", "watch"}

// access lists the roles given to all nodes.
//
// The ConfigMaps cannot be named in the rule: their number grows with the cluster, and RBAC has no
// prefixes. The EndpointSlice is named; get works as usual, while list and watch must select it by
// the field metadata.name=kubernetes, which is how RBAC knows that one object is asked for.
func access() []rbacv1.Role {
	return []rbacv1.Role{
		role(Namespace, "everynode:node-routes",
			rbacv1.PolicyRule{APIGroups: []string{corev1.GroupName}, Resources: []string{"configmaps"}, Verbs: readVerbs}),
		role(metav1.NamespaceDefault, "everynode:api-servers",
			rbacv1.PolicyRule{APIGroups: []string{discoveryv1.GroupName}, Resources: []string{"endpointslices"},
				ResourceNames: []string{"kubernetes"}, Verbs: readVerbs}),
	}
}

func role(namespace, name string, rule rbacv1.PolicyRule) rbacv1.Role {
	return rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: ownLabels()},
		Rules:      []rbacv1.PolicyRule{rule},
	}
}

// bindingOf gives a role to all nodes.
func bindingOf(r *rbacv1.Role) *rbacv1.RoleBinding {
	return &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: r.Name, Labels: ownLabels()},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: nodesGroup}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: r.Name},
	}
}

func ownLabels() map[string]string { return map[string]string{managedByLabel: managedBy} }

// ensureAccess makes the namespace and the roles as they must be.
func ensureAccess(ctx context.Context, c kubernetes.Interface) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: Namespace, Labels: ownLabels()}}
	if _, err := c.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("namespace %s: %w", Namespace, err)
	}
	for _, r := range access() {
		if err := ensureRole(ctx, c, &r); err != nil {
			return fmt.Errorf("role %s/%s: %w", r.Namespace, r.Name, err)
		}
		if err := ensureBinding(ctx, c, bindingOf(&r)); err != nil {
			return fmt.Errorf("role binding %s/%s: %w", r.Namespace, r.Name, err)
		}
	}
	return nil
}

func ensureRole(ctx context.Context, c kubernetes.Interface, want *rbacv1.Role) error {
	roles := c.RbacV1().Roles(want.Namespace)
	have, err := roles.Get(ctx, want.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = roles.Create(ctx, want, metav1.CreateOptions{})
		return err
	case err != nil:
		return err
	case equality.Semantic.DeepEqual(have.Rules, want.Rules):
		return nil
	}
	have.Rules = want.Rules
	_, err = roles.Update(ctx, have, metav1.UpdateOptions{})
	return err
}

func ensureBinding(ctx context.Context, c kubernetes.Interface, want *rbacv1.RoleBinding) error {
	bindings := c.RbacV1().RoleBindings(want.Namespace)
	have, err := bindings.Get(ctx, want.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = bindings.Create(ctx, want, metav1.CreateOptions{})
		return err
	case err != nil:
		return err
	case have.RoleRef != want.RoleRef: // immutable
		if err := bindings.Delete(ctx, want.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		_, err = bindings.Create(ctx, want, metav1.CreateOptions{})
		return err
	case equality.Semantic.DeepEqual(have.Subjects, want.Subjects):
		return nil
	}
	have.Subjects = want.Subjects
	_, err = bindings.Update(ctx, have, metav1.UpdateOptions{})
	return err
}
