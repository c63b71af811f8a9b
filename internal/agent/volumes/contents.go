package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/ptr"

	"github.com/everynode/everynode/internal/agent/downward"
	"github.com/everynode/everynode/internal/agent/objects"
)

// contents makes or refreshes a volume whose files come from the API: configMap,
// secret, projected or downwardAPI. All but configMaps lie in memory only.
func (m *Manager) contents(ctx context.Context, p *podVolumes, at layout, v *corev1.Volume) (Volume, error) {
	c := collector{m: m, p: p, files: payload{}}
	var kind string
	var err error
	switch {
	case v.ConfigMap != nil:
		kind = "configmap"
		err = c.configMap(ctx, v.ConfigMap.Name, v.ConfigMap.Items, v.ConfigMap.Optional, v.ConfigMap.DefaultMode)
	case v.Secret != nil:
		kind = "secret"
		err = c.secret(ctx, v.Secret.SecretName, v.Secret.Items, v.Secret.Optional, v.Secret.DefaultMode)
	case v.DownwardAPI != nil:
		kind = "downward-api"
		err = c.downward(v.DownwardAPI.Items, v.DownwardAPI.DefaultMode)
	case v.Projected != nil:
		kind = "projected"
		c.before = filepath.Join(at.volume(kind, v.Name), current)
		err = c.projected(ctx, v.Projected)
	default:
		return Volume{}, errors.New("this agent does not support its kind: emptyDir, hostPath, configMap, secret, projected, downwardAPI and claims it does")
	}
	// What fails now may come right: Run tries it again.
	p.live[v.Name] = time.Now().Add(retryAfter)
	if err != nil {
		return Volume{}, err
	}
	dir := at.volume(kind, v.Name)
	if err := m.place(p, dir, v.Name, kind != "configmap", c.files); err != nil {
		return Volume{}, err
	}
	p.live[v.Name] = c.due
	return Volume{Path: dir, ReadOnly: true}, nil
}

// place puts files into the volume's folder.
func (m *Manager) place(p *podVolumes, dir, name string, inMemory bool, files payload) error {
	if err := makeOpenFolder(dir); err != nil {
		return err
	}
	if inMemory {
		if _, err := mountTmpfs(dir, memorySize(p, &corev1.EmptyDirVolumeSource{})); err != nil {
			return err
		}
	}
	if err := nestedMountPoints(name, dir, &p.pod.Spec); err != nil {
		return err
	}
	return replace(dir, files, func() error {
		if gid := fsGroup(p.pod); gid != nil {
			return giveToGroup(dir, *gid, false)
		}
		return nil
	})
}

// collector gathers the files of one volume.
type collector struct {
	m     *Manager
	p     *podVolumes
	files payload
	// due is when a token among them has to be renewed.
	due time.Time
	// before is where the files are that the volume has had so far.
	before string
}

// defaultMode is what the API server sets where a manifest is silent; one that
// came from a file on the node has not been there.
const defaultMode = 0o644

func (c *collector) projected(ctx context.Context, v *corev1.ProjectedVolumeSource) error {
	for i := range v.Sources {
		s := &v.Sources[i]
		var err error
		switch {
		case s.ConfigMap != nil:
			err = c.configMap(ctx, s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.Optional, v.DefaultMode)
		case s.Secret != nil:
			err = c.secret(ctx, s.Secret.Name, s.Secret.Items, s.Secret.Optional, v.DefaultMode)
		case s.DownwardAPI != nil:
			err = c.downward(s.DownwardAPI.Items, v.DefaultMode)
		case s.ServiceAccountToken != nil:
			err = c.token(ctx, s.ServiceAccountToken, v.DefaultMode)
		case s.ClusterTrustBundle != nil:
			if !ptr.Deref(s.ClusterTrustBundle.Optional, false) {
				err = errors.New("clusterTrustBundle is not supported: project the CA from a configMap, or mark it optional")
			}
		default:
			err = fmt.Errorf("source %d is of a kind that this agent does not support", i)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *collector) configMap(ctx context.Context, name string, items []corev1.KeyToPath, optional *bool, mode *int32) error {
	cm, err := c.m.o.Objects.ConfigMap(ctx, c.p.pod.Namespace, name)
	if apierrors.IsNotFound(err) {
		if cm = c.m.standIn(name); cm == nil && ptr.Deref(optional, false) {
			return nil
		}
	}
	if cm == nil {
		return err
	}
	data := make(map[string][]byte, len(cm.Data)+len(cm.BinaryData))
	for k, v := range cm.Data {
		data[k] = []byte(v)
	}
	for k, v := range cm.BinaryData {
		data[k] = v
	}
	return c.keys(data, items, ptr.Deref(optional, false), mode, "ConfigMap "+c.p.pod.Namespace+"/"+name)
}

// standIn makes up for the CA's ConfigMap while its controller has not reached a
// new namespace: every pod wants it, and we know what will be in it.
func (m *Manager) standIn(name string) *corev1.ConfigMap {
	if name != "kube-root-ca.crt" || m.o.ClusterCA == nil {
		return nil
	}
	ca := m.o.ClusterCA()
	if len(ca) == 0 {
		return nil
	}
	return &corev1.ConfigMap{Data: map[string]string{"ca.crt": string(ca)}}
}

func (c *collector) secret(ctx context.Context, name string, items []corev1.KeyToPath, optional *bool, mode *int32) error {
	s, err := c.m.o.Objects.Secret(ctx, c.p.pod.Namespace, name)
	if apierrors.IsNotFound(err) && ptr.Deref(optional, false) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.keys(s.Data, items, ptr.Deref(optional, false), mode, "Secret "+c.p.pod.Namespace+"/"+name)
}

// keys adds all of data, or the items of it.
func (c *collector) keys(data map[string][]byte, items []corev1.KeyToPath, optional bool, mode *int32, object string) error {
	if len(items) == 0 {
		for key, value := range data {
			c.files[key] = file{data: value, mode: ptr.Deref(mode, defaultMode)}
		}
		return nil
	}
	for _, item := range items {
		value, found := data[item.Key]
		if !found && optional {
			continue
		}
		if !found {
			return fmt.Errorf("%s has no key %q: add it, or mark the volume optional", object, item.Key)
		}
		c.files[item.Path] = file{data: value, mode: ptr.Deref(item.Mode, ptr.Deref(mode, defaultMode))}
	}
	return nil
}

func (c *collector) downward(items []corev1.DownwardAPIVolumeFile, mode *int32) error {
	for _, item := range items {
		var text string
		var err error
		switch {
		case item.FieldRef != nil:
			text, err = downward.Metadata(item.FieldRef.FieldPath, c.p.pod)
		case item.ResourceFieldRef != nil:
			text, err = downward.Resource(item.ResourceFieldRef, c.p.pod, nil, c.p.facts)
		}
		if err != nil {
			return fmt.Errorf("file %q: %w", item.Path, err)
		}
		c.files[item.Path] = file{data: []byte(text), mode: ptr.Deref(item.Mode, ptr.Deref(mode, defaultMode))}
	}
	return nil
}

// token adds a service account token that is bound to the pod: it dies with it.
func (c *collector) token(ctx context.Context, t *corev1.ServiceAccountTokenProjection, mode *int32) error {
	pod := c.p.pod
	tr := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: t.ExpirationSeconds,
		BoundObjectRef: &authenticationv1.BoundObjectReference{
			APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID,
		},
	}}
	if t.Audience != "" {
		tr.Spec.Audiences = []string{t.Audience}
	}
	account := pod.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	got, err := c.m.o.Objects.Token(ctx, pod.Namespace, account, tr)
	if errors.Is(err, objects.ErrOffline) {
		c.withoutToken(t.Path, mode)
		return nil
	}
	if err != nil {
		return err
	}
	c.files[t.Path] = c.tokenFile([]byte(got.Status.Token), mode)
	c.due = earlier(c.due, objects.RefreshAt(got))
	return nil
}

// withoutToken is for a pod that runs with no server in sight: the token that the volume has is left
// in it, and if it has none, the file comes when the server does.
func (c *collector) withoutToken(path string, mode *int32) {
	c.due = earlier(c.due, time.Now().Add(retryAfter))
	clean, err := relative(path)
	if err != nil {
		return
	}
	if data, err := os.ReadFile(filepath.Join(c.before, clean)); err == nil {
		c.files[path] = c.tokenFile(data, mode)
	}
}

// tokenFile is the token's file: its user's alone, if it is known who that is.
func (c *collector) tokenFile(data []byte, mode *int32) file {
	f := file{data: data, mode: ptr.Deref(mode, defaultMode), user: onlyUser(c.p.pod)}
	if f.user != nil || fsGroup(c.p.pod) != nil {
		f.mode = 0o600 // the group may read it through fsGroup
	}
	return f
}

// nestedMountPoints makes the folders in a read-only volume on which containers
// mount other volumes: the runtime could not make them.
func nestedMountPoints(name, dir string, spec *corev1.PodSpec) error {
	for c := range containers(spec) {
		for _, inner := range nested(name, c) {
			path, err := relative(inner)
			if err != nil || strings.HasPrefix(path, "..") {
				return fmt.Errorf("mountPath below it in container %q: %s", c.Name, inner)
			}
			if err := os.MkdirAll(filepath.Join(dir, path), 0o755); err != nil {
				return fmt.Errorf("making a mount point for another volume: %w", err)
			}
		}
	}
	return nil
}

// nested returns where a container mounts volumes below volume name, relative to
// it; of mounts within each other only the outermost.
func nested(name string, c *corev1.Container) []string {
	var all, mine, out []string
	for _, m := range c.VolumeMounts {
		path := filepath.Clean("/" + m.MountPath)
		all = append(all, path)
		if m.Name == name {
			mine = append(mine, path)
		}
	}
	slices.Sort(all)
	for _, outer := range mine {
		var seen []string
		for _, path := range all {
			inner, below := strings.CutPrefix(path, strings.TrimSuffix(outer, "/")+"/")
			hidden := slices.ContainsFunc(seen, func(s string) bool { return strings.HasPrefix(path, s+"/") })
			if below && inner != "" && !hidden {
				seen = append(seen, path)
				out = append(out, inner)
			}
		}
	}
	return out
}
