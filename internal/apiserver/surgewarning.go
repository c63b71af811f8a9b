package apiserver

import (
	"context"
	"fmt"
	"io"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/apps"
	// Conversion of pod templates is registered there.
	_ "k8s.io/kubernetes/pkg/apis/apps/v1"

	"github.com/everynode/everynode/internal/decide/daemonset"
)

// surgeWarningName is the plugin's name in metrics and configuration.
const surgeWarningName = "DaemonSetSurgeWarning"

// surgeWarning warns whoever creates or updates a DaemonSet whose updates can never finish, because its surging pods
// need host ports that the old ones hold. It refuses nothing: apps/v1 accepts such a DaemonSet.
type surgeWarning struct{ *admission.Handler }

var _ admission.ValidationInterface = surgeWarning{}

func registerSurgeWarning(plugins *admission.Plugins) {
	plugins.Register(surgeWarningName, func(io.Reader) (admission.Interface, error) {
		return surgeWarning{admission.NewHandler(admission.Create, admission.Update)}, nil
	})
}

// Validate warns, and never refuses.
func (surgeWarning) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if a.GetResource().GroupResource() != apps.Resource("daemonsets") || a.GetSubresource() != "" {
		return nil
	}
	internal, ok := a.GetObject().(*apps.DaemonSet)
	if !ok || internal.DeletionTimestamp != nil {
		return nil
	}
	var ds appsv1.DaemonSet
	if err := legacyscheme.Scheme.Convert(internal, &ds, nil); err != nil {
		return nil //nolint:nilerr // what cannot be read cannot be warned about; validation has had its say
	}
	ports := daemonset.SurgePorts(&ds.Spec)
	if len(ports) == 0 {
		return nil
	}
	names := make([]string, len(ports))
	for i, p := range ports {
		names[i] = p.String()
	}
	warning.AddWarning(ctx, "", fmt.Sprintf(
		"spec.updateStrategy.rollingUpdate.maxSurge: an update can never finish: the new pod needs host port %s, which the old pod on the same node holds until it is gone; set maxSurge to 0 and maxUnavailable to at least 1",
		strings.Join(names, ", ")))
	return nil
}
