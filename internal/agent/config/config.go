package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/everynode/everynode/internal/decide/podlife"
)

// The version and the kind that a file must name.
const (
	APIVersion = "everynode.io/v1alpha1"
	Kind       = "AgentConfiguration"
)

// maxSize bounds a file: this is a page of settings.
const maxSize = 1 << 20

// Config is what the file says. To add a setting: a field here, or in a part of it, with its kubelet
// name, its rule in Validate, and a line in agent.Options.Configure.
type Config struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`

	// StaticPodPath is the folder of static pods; empty for none.
	StaticPodPath *string `json:"staticPodPath,omitempty"`
	// OfflinePods has the node keep a record of its DaemonSets' pods, to run them after a reboot
	// with no server in sight.
	OfflinePods *bool `json:"offlinePods,omitempty"`
	// AllowedUnsafeSysctls are sysctls that pods may set beside the safe ones, by name or
	// as net.core.*.
	AllowedUnsafeSysctls []string `json:"allowedUnsafeSysctls,omitempty"`

	Upkeep
}

// Load reads and checks a file. Its errors name the file, the field and what would be right.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("--config: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return nil, fmt.Errorf("--config %s: %w", path, err)
	}
	if len(data) > maxSize {
		return nil, fmt.Errorf("--config %s: it is larger than %d bytes", path, maxSize)
	}
	c, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("--config %s: %w", path, err)
	}
	return c, nil
}

// Parse reads and checks the content of a file, YAML or JSON.
func Parse(data []byte) (*Config, error) {
	asJSON, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, err
	}
	if bytes.Equal(bytes.TrimSpace(asJSON), []byte("null")) {
		return nil, fmt.Errorf("it is empty; it must begin with\napiVersion: %s\nkind: %s", APIVersion, Kind)
	}
	var c Config
	strict, err := kjson.UnmarshalStrict(asJSON, &c)
	if err != nil {
		return nil, typeError(err)
	}
	if err := c.checkVersion(); err != nil {
		return nil, err
	}
	if len(strict) > 0 {
		return nil, fmt.Errorf("%w; the fields are: %s", errors.Join(strict...), strings.Join(fields(), ", "))
	}
	return &c, c.Validate().ToAggregate()
}

// typeError says which field has a value of the wrong type.
func typeError(err error) error {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) || wrong.Field == "" {
		return err
	}
	return fmt.Errorf("%s: got a %s, want a %s", strings.TrimPrefix(wrong.Field, "Upkeep."), wrong.Value, wrong.Type)
}

func (c *Config) checkVersion() error {
	if c.APIVersion == APIVersion && c.Kind == Kind {
		return nil
	}
	hint := ""
	if c.Kind == "KubeletConfiguration" {
		hint = "; fields that both have bear the same names"
	}
	return fmt.Errorf("apiVersion %q, kind %q: want apiVersion: %s and kind: %s%s", c.APIVersion, c.Kind, APIVersion, Kind, hint)
}

// fields are the names that may stand in a file.
func fields() []string {
	var names []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[Config]()) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// Validate names every field whose value cannot work.
func (c *Config) Validate() field.ErrorList {
	var errs field.ErrorList
	if p := c.StaticPodPath; p != nil && *p != "" && !filepath.IsAbs(*p) {
		errs = append(errs, field.Invalid(field.NewPath("staticPodPath"), *p, "must be an absolute path, or empty for no static pods"))
	}
	for i, s := range c.AllowedUnsafeSysctls {
		if err := podlife.CheckSysctl(s); err != nil {
			errs = append(errs, field.Invalid(field.NewPath("allowedUnsafeSysctls").Index(i), s, err.Error()))
		}
	}
	_, wrong := c.Settings()
	return append(errs, wrong...)
}
