package explain

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
)

// Manifest is one DaemonSet as somebody wrote it.
type Manifest struct {
	JSON      []byte
	Namespace string // "" if it names none
	Name      string
	// Warnings are about fields that the API does not know.
	Warnings []string

	typed *appsv1.DaemonSet
}

// DaemonSet is the manifest as it was read, without the API's defaults. It must not be changed.
func (m *Manifest) DaemonSet() *appsv1.DaemonSet { return m.typed }

// VersionError is a DaemonSet of an API version that is not served any more.
type VersionError struct{ Name, APIVersion string }

func (e *VersionError) Error() string {
	return fmt.Sprintf("DaemonSet %s is of %s, which Kubernetes has removed: write apiVersion: apps/v1", e.Name, e.APIVersion)
}

// ReadManifests returns the DaemonSets of a YAML or JSON stream, those in lists too. Other kinds are skipped: what
// they would change does not change where a DaemonSet may run.
func ReadManifests(r io.Reader) ([]*Manifest, error) {
	docs := yaml.NewYAMLReader(bufio.NewReader(r))
	var found []*Manifest
	for {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		raw, err := yaml.ToJSON(doc)
		if err != nil {
			return nil, err
		}
		some, err := readObject(raw)
		if err != nil {
			return nil, err
		}
		found = append(found, some...)
	}
}

func readObject(raw []byte) ([]*Manifest, error) {
	var head struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        struct{ Name, GenerateName, Namespace string }
		Items           []json.RawMessage
	}
	if bytes.Equal(bytes.TrimSpace(raw), []byte("null")) {
		return nil, nil // a document of comments
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, err
	}
	switch head.Kind {
	case "List", "DaemonSetList":
		var all []*Manifest
		for _, item := range head.Items {
			some, err := readObject(item)
			if err != nil {
				return nil, err
			}
			all = append(all, some...)
		}
		return all, nil
	case "DaemonSet":
	default:
		return nil, nil
	}
	if head.APIVersion != appsv1.SchemeGroupVersion.String() {
		return nil, &VersionError{Name: head.Metadata.Name, APIVersion: head.APIVersion}
	}
	if head.Metadata.Name == "" {
		return nil, errors.New("a DaemonSet has no metadata.name")
	}
	m := &Manifest{JSON: raw, Name: head.Metadata.Name, Namespace: head.Metadata.Namespace, typed: &appsv1.DaemonSet{}}
	strict := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	_, _, err := strict.Decode(raw, nil, m.typed)
	switch {
	case runtime.IsStrictDecodingError(err):
		m.Warnings = append(m.Warnings, oneLine(err.Error()))
	case err != nil:
		return nil, fmt.Errorf("DaemonSet %s: %w", m.Name, err)
	}
	return []*Manifest{m}, nil
}

// DryRun is what applying a manifest would store.
type DryRun struct {
	// Before is the DaemonSet as it is, nil if there is none.
	Before *appsv1.DaemonSet
	After  *appsv1.DaemonSet
	Notes  []string
}

// fieldManager is under whose name kubectl apply writes: the dry run must find the same fields its own.
const fieldManager = "kubectl-client-side-apply"

// DryRunApply asks the server what `kubectl apply` of the manifest would store, with all its defaults, admission
// and validation. Nothing is stored. namespace is used if the manifest names none.
func DryRunApply(ctx context.Context, client kubernetes.Interface, m *Manifest, namespace string) (*DryRun, error) {
	if m.Namespace != "" {
		namespace = m.Namespace
	}
	before, err := client.AppsV1().DaemonSets(namespace).Get(ctx, m.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return dryCreate(ctx, client, m, namespace)
	case err != nil:
		return nil, fmt.Errorf("read DaemonSet %s/%s: %w", namespace, m.Name, err)
	}
	patch, err := applyPatch(m, before)
	if err != nil {
		return nil, fmt.Errorf("DaemonSet %s/%s: compare with what is stored: %w", namespace, m.Name, err)
	}
	after, err := client.AppsV1().DaemonSets(namespace).Patch(ctx, m.Name, types.StrategicMergePatchType, patch,
		metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}, FieldManager: fieldManager})
	if err != nil {
		return nil, fmt.Errorf("DaemonSet %s/%s would be refused: %w", namespace, m.Name, err)
	}
	return &DryRun{Before: before, After: after}, nil
}

// applyPatch is kubectl's: what the manifest has, and without what it had when it was last applied.
func applyPatch(m *Manifest, before *appsv1.DaemonSet) ([]byte, error) {
	current, err := runtime.Encode(scheme.Codecs.LegacyCodec(appsv1.SchemeGroupVersion), before)
	if err != nil {
		return nil, err
	}
	meta, err := strategicpatch.NewPatchMetaFromStruct(appsv1.DaemonSet{})
	if err != nil {
		return nil, err
	}
	last := []byte(before.Annotations[corev1.LastAppliedConfigAnnotation])
	if len(last) == 0 {
		last = nil
	}
	return strategicpatch.CreateThreeWayMergePatch(last, m.JSON, current, meta, true)
}

// dryCreate creates the DaemonSet as far as the server goes without storing it. If its namespace does not exist
// either (the manifest may make it), another one stands in: defaults and validation are the same.
func dryCreate(ctx context.Context, client kubernetes.Interface, m *Manifest, namespace string) (*DryRun, error) {
	create := func(in string) (*appsv1.DaemonSet, error) {
		ds := m.typed.DeepCopy()
		ds.Namespace = in
		return client.AppsV1().DaemonSets(in).Create(ctx, ds, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldManager: fieldManager})
	}
	d := &DryRun{}
	var err error
	d.After, err = create(namespace)
	if apierrors.IsNotFound(err) && namespace != metav1.NamespaceDefault {
		d.Notes = append(d.Notes, fmt.Sprintf("namespace %s does not exist yet; its own rules, if any, are not known", namespace))
		d.After, err = create(metav1.NamespaceDefault)
	}
	if err != nil {
		return nil, fmt.Errorf("DaemonSet %s/%s would be refused: %w", namespace, m.Name, err)
	}
	d.After = d.After.DeepCopy()
	d.After.Namespace = namespace
	return d, nil
}
