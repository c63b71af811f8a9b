package apiserver

import (
	"strings"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/util/openapi"
	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	generatedopenapi "k8s.io/kubernetes/pkg/generated/openapi"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

func (a *assembly) openAPI() error {
	definitions := openapi.GetOpenAPIDefinitionsWithoutDisabledFeatures(servedDefinitions)
	namer := openapinamer.NewDefinitionNamer(legacyscheme.Scheme)
	a.generic.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(definitions, namer)
	a.generic.OpenAPIConfig.Info.Title = "Kubernetes"
	a.generic.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(definitions, namer)
	a.generic.OpenAPIV3Config.Info.Title = "Kubernetes"
	return nil
}

// servedDefinitions are upstream's schemas of the groups served here and of what those refer to: about a third. The
// rest would stay in memory for nothing.
func servedDefinitions(ref common.ReferenceCallback) map[string]common.OpenAPIDefinition {
	all := generatedopenapi.GetOpenAPIDefinitions(ref)
	roots := definitionPrefixes()
	kept := map[string]common.OpenAPIDefinition{}
	var keep func(name string)
	keep = func(name string) {
		d, known := all[name]
		if _, done := kept[name]; done || !known {
			return
		}
		kept[name] = d
		for _, dependency := range d.Dependencies {
			keep(dependency)
		}
	}
	for name := range all {
		for _, r := range roots {
			if strings.HasPrefix(name, r) {
				keep(name)
			}
		}
	}
	return kept
}

func definitionPrefixes() []string {
	prefixes := []string{"io.k8s.apimachinery.", modelPrefix(corev1.SchemeGroupVersion), modelPrefix(autoscalingv1.SchemeGroupVersion)}
	for _, g := range servedGroups() {
		prefixes = append(prefixes, modelPrefix(g.version))
	}
	return prefixes
}

// modelPrefix is what the model names of a built-in group begin with: rbac.authorization.k8s.io/v1 is io.k8s.api.rbac.v1.
func modelPrefix(gv schema.GroupVersion) string {
	if gv == metricsv1beta1.SchemeGroupVersion {
		return "io.k8s.metrics.pkg.apis.metrics.v1beta1."
	}
	group, _, _ := strings.Cut(gv.Group, ".")
	if group == "" {
		group = "core"
	}
	return "io.k8s.api." + group + "." + gv.Version + "."
}
