package apiserver

import (
	"fmt"

	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	admissionmetrics "k8s.io/apiserver/pkg/admission/metrics"
	"k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle"
	"k8s.io/kubernetes/plugin/pkg/admission/certificates/approval"
	"k8s.io/kubernetes/plugin/pkg/admission/certificates/signing"
	"k8s.io/kubernetes/plugin/pkg/admission/certificates/subjectrestriction"
	"k8s.io/kubernetes/plugin/pkg/admission/defaulttolerationseconds"
	"k8s.io/kubernetes/plugin/pkg/admission/limitranger"
	"k8s.io/kubernetes/plugin/pkg/admission/nodedeclaredfeatures"
	"k8s.io/kubernetes/plugin/pkg/admission/noderestriction"
	"k8s.io/kubernetes/plugin/pkg/admission/nodetaint"
	"k8s.io/kubernetes/plugin/pkg/admission/podresize"
	"k8s.io/kubernetes/plugin/pkg/admission/podtopologylabels"
	"k8s.io/kubernetes/plugin/pkg/admission/priority"
	"k8s.io/kubernetes/plugin/pkg/admission/runtimeclass"
	"k8s.io/kubernetes/plugin/pkg/admission/security/podsecurity"
	"k8s.io/kubernetes/plugin/pkg/admission/serviceaccount"
	"k8s.io/kubernetes/plugin/pkg/admission/storage/persistentvolume/resize"
	"k8s.io/kubernetes/plugin/pkg/admission/storage/storageclass/setdefault"
	"k8s.io/kubernetes/plugin/pkg/admission/storage/storageobjectinuseprotection"
)

type admissionPlugin struct {
	name     string
	register func(*admission.Plugins)
}

// admissionPlugins are those that a stock API server has on by default, in its order, less the ones for kinds that are
// not served: webhooks, admission policies, quotas, ingress classes, pod groups, trust bundles, jobs.
func admissionPlugins() []admissionPlugin {
	return []admissionPlugin{
		{lifecycle.PluginName, lifecycle.Register},
		{limitranger.PluginName, limitranger.Register},
		{serviceaccount.PluginName, serviceaccount.Register},
		{noderestriction.PluginName, noderestriction.Register},
		{nodetaint.PluginName, registerTaintUnready},
		{podsecurity.PluginName, podsecurity.Register},
		{priority.PluginName, priority.Register},
		{defaulttolerationseconds.PluginName, defaulttolerationseconds.Register},
		{setdefault.PluginName, setdefault.Register},
		{storageobjectinuseprotection.PluginName, storageobjectinuseprotection.Register},
		{resize.PluginName, resize.Register},
		{runtimeclass.PluginName, runtimeclass.Register},
		{approval.PluginName, approval.Register},
		{signing.PluginName, signing.Register},
		{subjectrestriction.PluginName, subjectrestriction.Register},
		{podtopologylabels.PluginName, podtopologylabels.Register},
		{nodedeclaredfeatures.PluginName, nodedeclaredfeatures.Register},
		{podresize.PluginName, podresize.Register},
		{surgeWarningName, registerSurgeWarning},
	}
}

func (a *assembly) admit() error {
	plugins := admission.NewPlugins()
	var names []string
	for _, p := range admissionPlugins() {
		p.register(plugins)
		names = append(names, p.name)
	}
	config, err := admission.ReadAdmissionConfiguration(names, "", nil)
	if err != nil {
		return fmt.Errorf("admission: %w", err)
	}
	init := initializer.New(a.client, nil, a.informers, a.generic.Authorization.Authorizer, a.generic.FeatureGate,
		a.generic.EffectiveVersion, a.generic.DrainedNotify(), nil)
	chain, err := plugins.NewFromPlugins(names, config, init, admission.DecoratorFunc(admissionmetrics.WithControllerMetrics))
	if err != nil {
		return fmt.Errorf("admission: %w", err)
	}
	a.generic.AdmissionControl = admissionmetrics.WithStepMetrics(chain)
	return nil
}
