package env

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/everynode/everynode/internal/agent/downward"
)

// source holds objects by namespace/name.
type source struct {
	configMaps map[string]map[string]string
	secrets    map[string]map[string]string
	err        error
}

func (s source) ConfigMap(_ context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	if s.err != nil {
		return nil, s.err
	}
	data, ok := s.configMaps[namespace+"/"+name]
	if !ok {
		return nil, apierrors.NewNotFound(corev1.Resource("configmaps"), name)
	}
	return &corev1.ConfigMap{Data: data}, nil
}

func (s source) Secret(_ context.Context, namespace, name string) (*corev1.Secret, error) {
	data, ok := s.secrets[namespace+"/"+name]
	if !ok {
		return nil, apierrors.NewNotFound(corev1.Resource("secrets"), name)
	}
	out := &corev1.Secret{Data: map[string][]byte{}}
	for k, v := range data {
		out.Data[k] = []byte(v)
	}
	return out, nil
}

func (source) Token(context.Context, string, string, *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	return nil, errors.New("no tokens here")
}

var known = source{
	configMaps: map[string]map[string]string{
		"shop/settings": {"COLOUR": "blue", "data-1": "dashed", "REF": "$(COLOUR)"},
		"shop/more":     {"COLOUR": "green"},
		"other/secret":  {"X": "must not be seen"},
	},
	secrets: map[string]map[string]string{"shop/keys": {"password": "p$(X)$$"}},
}

var facts = downward.Facts{
	NodeName: "n1", HostIPs: []string{"10.0.0.1"}, PodIPs: []string{"10.42.0.2"},
	Allocatable: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("2")},
}

func container(t *testing.T, text string) *corev1.Container {
	t.Helper()
	c := &corev1.Container{}
	if err := yaml.UnmarshalStrict([]byte(text), c); err != nil {
		t.Fatalf("the test's own YAML: %v", err)
	}
	return c
}

func pod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "u-1", Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{NodeName: "n1"},
	}
}

func lines(vars []Var) []string {
	out := []string{}
	for _, v := range vars {
		out = append(out, v.Name+"="+v.Value)
	}
	return out
}

func TestMake(t *testing.T) {
	for _, c := range []struct {
		name, container string
		want            []string
	}{
		{"nothing", `{}`, []string{}},
		{"values keep their order; the last of one name wins at the place of the first", `
env:
- {name: B, value: "1"}
- {name: A, value: "2"}
- {name: B, value: "3"}
- {name: EMPTY}`, []string{"B=3", "A=2", "EMPTY="}},
		{"references see what was defined before them", `
env:
- {name: A, value: "$(B) $(UNKNOWN)"}
- {name: B, value: b}
- {name: C, value: "$(A)-$(B)-$$(B)-$x"}`, []string{"A=$(B) $(UNKNOWN)", "B=b", "C=$(B) $(UNKNOWN)-b-$(B)-$x"}},
		{"envFrom comes first, later sources win, prefixes apply, odd names pass", `
envFrom:
- configMapRef: {name: settings}
- configMapRef: {name: more}
- prefix: P_
  secretRef: {name: keys}
env:
- {name: PAINT, value: "$(COLOUR)"}
- {name: data-1, value: "over"}`, []string{"COLOUR=green", "REF=$(COLOUR)", "data-1=over", "P_password=p$(X)$$", "PAINT=green"}},
		{"a prefix that no environment can hold skips the names", `
envFrom:
- prefix: "a="
  configMapRef: {name: more}`, []string{}},
		{"optional references to nothing add nothing", `
envFrom:
- configMapRef: {name: absent, optional: true}
- secretRef: {name: absent, optional: true}
env:
- {name: A, valueFrom: {configMapKeyRef: {name: absent, key: k, optional: true}}}
- {name: B, valueFrom: {secretKeyRef: {name: keys, key: absent, optional: true}}}`, []string{}},
		{"what references bring is not expanded", `
env:
- {name: PASSWORD, valueFrom: {secretKeyRef: {name: keys, key: password}}}
- {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: COLOUR}}}
- {name: COPY, value: "$(PASSWORD)"}`, []string{"PASSWORD=p$(X)$$", "COLOUR=blue", "COPY=p$(X)$$"}},
		{"fields and resources", `
resources: {requests: {cpu: 250m}}
env:
- {name: APP, valueFrom: {fieldRef: {fieldPath: "metadata.labels['app']"}}}
- {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
- {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
- {name: HOST, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
- {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
- {name: ASKED, valueFrom: {resourceFieldRef: {resource: requests.cpu, divisor: 1m}}}`,
			[]string{"APP=web", "NODE=n1", "IP=10.42.0.2", "HOST=10.0.0.1", "CPU=2", "ASKED=250"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Make(t.Context(), pod(), container(t, c.container), facts, nil, known, nil)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(c.want, lines(got)); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestMakeRefusals(t *testing.T) {
	for text, want := range map[string]string{
		`{name: c, envFrom: [{configMapRef: {name: absent}}]}`:                                                     `envFrom of container "c"`,
		`{name: c, envFrom: [{secretRef: {name: absent}}]}`:                                                        `not found`,
		`{name: c, env: [{name: A, valueFrom: {configMapKeyRef: {name: settings, key: absent}}}]}`:                 `ConfigMap shop/settings has no key "absent"`,
		`{name: c, env: [{name: A, valueFrom: {secretKeyRef: {name: keys, key: absent}}}]}`:                        `Secret shop/keys has no key "absent"`,
		`{name: c, env: [{name: A, valueFrom: {secretKeyRef: {name: secret, key: X}}}]}`:                           `not found`,
		`{name: c, env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.phase}}}]}`:                            `env "A" of container "c"`,
		`{name: c, env: [{name: A, valueFrom: {resourceFieldRef: {resource: limits.gpu}}}]}`:                       `limits.gpu`,
		`{name: c, env: [{name: A, valueFrom: {resourceFieldRef: {containerName: other, resource: limits.cpu}}}]}`: `no container "other"`,
	} {
		_, err := Make(t.Context(), pod(), container(t, text), facts, nil, known, nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n error %v; want one with %q", text, err, want)
		}
	}
	// Optional is about missing objects, not about a server that cannot be asked.
	away := source{err: errors.New("away")}
	c := container(t, `{envFrom: [{configMapRef: {name: settings, optional: true}}]}`)
	if _, err := Make(t.Context(), pod(), c, facts, nil, away, nil); err == nil {
		t.Error("an optional reference that could not be read was taken for missing")
	}
}

func service(namespace, name, ip string, ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec:       corev1.ServiceSpec{ClusterIP: ip, Ports: ports},
	}
}

func TestServices(t *testing.T) {
	api := service("default", "kubernetes", "10.43.0.1", corev1.ServicePort{Name: "https", Port: 443, Protocol: "TCP"})
	all := []*corev1.Service{
		service("shop", "cart-db", "fd00::5", corev1.ServicePort{Port: 5432}, corev1.ServicePort{Name: "dns-udp", Port: 53, Protocol: "UDP"}),
		service("shop", "headless", "None", corev1.ServicePort{Port: 1}),
		service("shop", "external", ""),
		service("elsewhere", "hidden", "10.43.0.9", corev1.ServicePort{Port: 1}),
		service("default", "hidden", "10.43.0.8", corev1.ServicePort{Port: 1}),
		service("shop", "portless", "10.43.0.7"),
		api,
	}
	kubernetes := []string{
		"KUBERNETES_PORT=tcp://10.43.0.1:443",
		"KUBERNETES_PORT_443_TCP=tcp://10.43.0.1:443",
		"KUBERNETES_PORT_443_TCP_ADDR=10.43.0.1",
		"KUBERNETES_PORT_443_TCP_PORT=443",
		"KUBERNETES_PORT_443_TCP_PROTO=tcp",
		"KUBERNETES_SERVICE_HOST=10.43.0.1",
		"KUBERNETES_SERVICE_PORT=443",
		"KUBERNETES_SERVICE_PORT_HTTPS=443",
	}
	cart := []string{
		"CART_DB_PORT=tcp://[fd00::5]:5432",
		"CART_DB_PORT_53_UDP=udp://[fd00::5]:53",
		"CART_DB_PORT_53_UDP_ADDR=fd00::5",
		"CART_DB_PORT_53_UDP_PORT=53",
		"CART_DB_PORT_53_UDP_PROTO=udp",
		"CART_DB_PORT_5432_TCP=tcp://[fd00::5]:5432",
		"CART_DB_PORT_5432_TCP_ADDR=fd00::5",
		"CART_DB_PORT_5432_TCP_PORT=5432",
		"CART_DB_PORT_5432_TCP_PROTO=tcp",
		"CART_DB_SERVICE_HOST=fd00::5",
		"CART_DB_SERVICE_PORT=5432",
		"CART_DB_SERVICE_PORT_DNS_UDP=53",
	}
	c := container(t, `{}`)
	got, err := Make(t.Context(), pod(), c, facts, all, known, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(append(append([]string{}, cart...), kubernetes...), lines(got)); d != "" {
		t.Error(d)
	}

	p, no := pod(), false
	p.Spec.EnableServiceLinks = &no
	got, _ = Make(t.Context(), p, c, facts, all, known, nil)
	if d := cmp.Diff(kubernetes, lines(got)); d != "" {
		t.Errorf("enableServiceLinks: false\n%s", d)
	}

	// A service of the pod's own namespace hides the one in default.
	own := service("shop", "kubernetes", "10.43.7.7", corev1.ServicePort{Port: 1})
	for _, order := range [][]*corev1.Service{{own, api}, {api, own}} {
		got, _ = Make(t.Context(), pod(), c, facts, order, known, nil)
		if Expand("$(KUBERNETES_SERVICE_HOST)", got) != "10.43.7.7" {
			t.Errorf("got %v", lines(got))
		}
	}

	// env may use and replace what services define.
	c = container(t, `
env:
- {name: URL, value: "https://$(KUBERNETES_SERVICE_HOST)"}
- {name: KUBERNETES_SERVICE_HOST, value: example.com}
- {name: LATER, value: "https://$(KUBERNETES_SERVICE_HOST)"}`)
	got, _ = Make(t.Context(), pod(), c, facts, []*corev1.Service{api}, known, nil)
	if d := cmp.Diff([]string{"URL=https://10.43.0.1", "KUBERNETES_SERVICE_HOST=example.com", "LATER=https://example.com"}, lines(got)[:3]); d != "" {
		t.Error(d)
	}
}

func TestExpand(t *testing.T) {
	vars := []Var{{"VAR_A", "A"}, {"VAR_B", "B"}, {"VAR_REF", "$(VAR_A)"}, {"VAR_EMPTY", ""}, {"VAR_B", "B2"}}
	for in, want := range map[string]string{
		"":                                "",
		"plain":                           "plain",
		"$(VAR_A)":                        "A",
		"$(VAR_B)":                        "B2",
		"$(VAR_REF)":                      "$(VAR_A)",
		"___$(VAR_A)___$(VAR_B)":          "___A___B2",
		"$(VAR_EMPTY)":                    "",
		"$(UNKNOWN)":                      "$(UNKNOWN)",
		"$$(VAR_A)":                       "$(VAR_A)",
		"$$$(VAR_A)":                      "$A",
		"$$$$":                            "$$",
		"f000-$$VAR_A":                    "f000-$VAR_A",
		"foo\\$(VAR_A)":                   "foo\\A",
		"$(VAR_A))":                       "A)",
		"$(VAR_A(VAR_B)":                  "$(VAR_A(VAR_B)",
		"$((VAR_A)":                       "$((VAR_A)",
		"$(VAR_":                          "$(VAR_",
		"$(":                              "$(",
		"$":                               "$",
		"a$":                              "a$",
		"$VAR_A":                          "$VAR_A",
		"$é$(VAR_A)":                      "$éA",
		"$x$(VAR_A)":                      "$xA",
		"${VAR_A}":                        "${VAR_A}",
		"$()":                             "$()",
		"^/(sys|proc|dev|host|etc)($$|/)": "^/(sys|proc|dev|host|etc)($|/)",
	} {
		if got := Expand(in, vars); got != want {
			t.Errorf("Expand(%q) = %q; want %q", in, got, want)
		}
	}
}

// Escaping what Expand would touch, then expanding, gives the text back.
func FuzzExpand(f *testing.F) {
	for _, s := range []string{"", "$", "$$", "$(A)", "$(A", "a$b", "$(", "\xff$\xfe(A)", "$($(A))"} {
		f.Add(s)
	}
	vars := []Var{{"A", "$(A)$$"}}
	f.Fuzz(func(t *testing.T, s string) {
		if got := Expand(strings.ReplaceAll(s, "$", "$$"), vars); got != s {
			t.Errorf("escaped %q came back as %q", s, got)
		}
		if !strings.Contains(s, "$") && Expand(s, vars) != s {
			t.Errorf("%q was changed", s)
		}
		Expand(s, vars)
	})
}
