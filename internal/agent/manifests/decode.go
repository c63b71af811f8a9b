package manifests

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// decoded is a pod as a document has it, before anything is made of it.
type decoded struct {
	pod *corev1.Pod
	// warnings say what of the document was not heard.
	warnings []string
}

// decode reads the documents of a file. What can be read is returned along with the errors of the
// rest.
func decode(data []byte) (pods []decoded, err error) {
	list, err := documents(data)
	var errs []error
	for n, document := range list {
		some, err := decodeDocument(document)
		if err != nil && len(list) > 1 {
			err = fmt.Errorf("document %d: %w", n+1, err)
		}
		pods, errs = append(pods, some...), append(errs, err)
	}
	return pods, errors.Join(append(errs, err)...)
}

// documents takes a file apart at its lines of three dashes.
func documents(data []byte) (list [][]byte, err error) {
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		list = append(list, document)
	}
}

func decodeDocument(document []byte) ([]decoded, error) {
	asJSON, err := yaml.YAMLToJSON(document)
	if err != nil {
		return nil, err
	}
	if bytes.Equal(bytes.TrimSpace(asJSON), []byte("null")) {
		return nil, nil // comments only
	}
	var kind metav1.TypeMeta
	if err := json.Unmarshal(asJSON, &kind); err != nil {
		return nil, fmt.Errorf("not a Kubernetes object: %w", err)
	}
	switch kind.APIVersion + " " + kind.Kind {
	case "v1 Pod":
		pod, err := decodePod(asJSON)
		if err != nil {
			return nil, err
		}
		if _, err := yaml.YAMLToJSONStrict(document); err != nil {
			pod.warnings = append(pod.warnings, strings.Join(strings.Fields(err.Error()), " "))
		}
		return []decoded{pod}, nil
	case "v1 List", "v1 PodList":
		return decodeList(asJSON)
	}
	return nil, fmt.Errorf("apiVersion %q, kind %q: a static pod must be apiVersion: v1, kind: Pod", kind.APIVersion, kind.Kind)
}

func decodeList(asJSON []byte) (pods []decoded, err error) {
	var list struct {
		Kind  string            `json:"kind"`
		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(asJSON, &list); err != nil {
		return nil, fmt.Errorf("items: %w", err)
	}
	var errs []error
	for i, item := range list.Items {
		var kind metav1.TypeMeta
		if err := json.Unmarshal(item, &kind); err != nil {
			errs = append(errs, fmt.Errorf("items[%d]: not a Kubernetes object: %w", i, err))
			continue
		}
		if list.Kind == "List" && (kind.APIVersion != "v1" || kind.Kind != "Pod") {
			errs = append(errs, fmt.Errorf("items[%d]: apiVersion %q, kind %q: a static pod must be apiVersion: v1, kind: Pod", i, kind.APIVersion, kind.Kind))
			continue
		}
		pod, err := decodePod(item)
		if err != nil {
			errs = append(errs, fmt.Errorf("items[%d]: %w", i, err))
			continue
		}
		pods = append(pods, pod)
	}
	return pods, errors.Join(errs...)
}

// decodePod reads one pod. Fields that no pod has are named in the warnings and not heard, as the
// kubelet does not hear them: the file may be for another version.
func decodePod(asJSON []byte) (decoded, error) {
	pod := &corev1.Pod{}
	unknown, err := kjson.UnmarshalStrict(asJSON, pod)
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) && wrong.Field != "" {
		err = fmt.Errorf("%s: got a %s, want a %s", wrong.Field, wrong.Value, wrong.Type)
	}
	if err != nil {
		return decoded{}, err
	}
	d := decoded{pod: pod}
	for _, u := range unknown {
		d.warnings = append(d.warnings, u.Error()+" is not heard")
	}
	return d, nil
}
