package images

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"sort"
	"strings"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// credential is one for a registry, and the secret that it is from.
type credential struct {
	auth   *runtimeapi.AuthConfig
	secret *corev1.Secret
}

// grant is what is remembered of a credential that the registry has accepted.
func (c *credential) grant() grant {
	return grant{
		Namespace: c.secret.Namespace, Name: c.secret.Name, UID: string(c.secret.UID),
		Hash: hex.EncodeToString([]byte(fingerprint([]credential{*c}))),
	}
}

// credentials finds those in the pod's pull secrets that fit the image, the most
// specific first, and names the secrets that could not be read.
func (p *Puller) credentials(ctx context.Context, pod *corev1.Pod, image string) (creds []credential, missing string) {
	if p.o.Secrets == nil || len(pod.Spec.ImagePullSecrets) == 0 {
		return nil, ""
	}
	var all []registryAuth
	var unread []string
	for _, ref := range pod.Spec.ImagePullSecrets {
		secret, err := p.o.Secrets.Secret(ctx, pod.Namespace, ref.Name)
		if err == nil {
			var auths []registryAuth
			auths, err = parseSecret(secret)
			all = append(all, auths...)
		}
		if err != nil {
			unread = append(unread, ref.Name)
		}
	}
	return match(all, image), strings.Join(unread, ", ")
}

// registryAuth is one entry of a docker configuration.
type registryAuth struct {
	// host may have wildcards in its labels; prefix is a path or empty.
	host, prefix string
	credential
}

type dockerEntry struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// parseSecret reads both kinds of pull secrets, dockerconfigjson and dockercfg.
func parseSecret(s *corev1.Secret) ([]registryAuth, error) {
	entries := map[string]dockerEntry{}
	switch s.Type {
	case corev1.SecretTypeDockerConfigJson:
		config := struct {
			Auths map[string]dockerEntry `json:"auths"`
		}{}
		if err := json.Unmarshal(s.Data[corev1.DockerConfigJsonKey], &config); err != nil {
			return nil, fmt.Errorf("secret %s: key %s is not a docker configuration: %w", s.Name, corev1.DockerConfigJsonKey, err)
		}
		entries = config.Auths
	case corev1.SecretTypeDockercfg:
		if err := json.Unmarshal(s.Data[corev1.DockerConfigKey], &entries); err != nil {
			return nil, fmt.Errorf("secret %s: key %s is not a docker configuration: %w", s.Name, corev1.DockerConfigKey, err)
		}
	default:
		return nil, fmt.Errorf("secret %s has type %q; a pull secret has %q", s.Name, s.Type, corev1.SecretTypeDockerConfigJson)
	}
	var list []registryAuth
	for server, e := range entries {
		auth, err := e.config()
		if err != nil {
			return nil, fmt.Errorf("secret %s, registry %s: %w", s.Name, server, err)
		}
		host, prefix := splitServer(server)
		list = append(list, registryAuth{host, prefix, credential{auth, s}})
	}
	return list, nil
}

var errAuth = errors.New(`"auth" is not the base64 form of user:password`)

func (e dockerEntry) config() (*runtimeapi.AuthConfig, error) {
	if e.Username == "" && e.Auth != "" {
		raw, err := base64.StdEncoding.DecodeString(e.Auth)
		if err != nil {
			raw, err = base64.RawStdEncoding.DecodeString(e.Auth)
		}
		user, password, ok := strings.Cut(strings.TrimRight(string(raw), "\x00\n"), ":")
		if err != nil || !ok {
			return nil, errAuth
		}
		e.Username, e.Password = user, password
	}
	return &runtimeapi.AuthConfig{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}, nil
}

// splitServer reads keys such as "https://index.docker.io/v1/", "host:5000/team".
func splitServer(server string) (host, prefix string) {
	server = strings.TrimPrefix(strings.TrimPrefix(server, "https://"), "http://")
	host, prefix, _ = strings.Cut(server, "/")
	prefix = strings.Trim(prefix, "/")
	if prefix == "v1" || prefix == "v2" {
		prefix = ""
	}
	return dockerHub(host), prefix
}

func dockerHub(host string) string {
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		return "docker.io"
	}
	return host
}

// match picks the entries that fit an image, the longest first.
func match(all []registryAuth, image string) []credential {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return nil
	}
	var fit []registryAuth
	for _, a := range all {
		repo := reference.Path(named)
		if hostMatches(a.host, reference.Domain(named)) && (a.prefix == "" || repo == a.prefix || strings.HasPrefix(repo, a.prefix+"/")) {
			fit = append(fit, a)
		}
	}
	sort.Slice(fit, func(i, j int) bool {
		a, b := fit[i], fit[j]
		if len(a.prefix) != len(b.prefix) {
			return len(a.prefix) > len(b.prefix)
		}
		if a.host != b.host {
			return a.host > b.host // plain names come before wildcards
		}
		return a.auth.Username < b.auth.Username
	})
	var list []credential
	for _, a := range fit {
		list = append(list, a.credential)
	}
	return list
}

// hostMatches compares label by label, so that * stands for one label only.
func hostMatches(pattern, host string) bool {
	p, h := strings.Split(pattern, "."), strings.Split(host, ".")
	if len(p) != len(h) {
		return false
	}
	for i := range p {
		if ok, err := path.Match(p[i], h[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

// fingerprint tells apart pulls of one image with different credentials.
func fingerprint(creds []credential) string {
	h := sha256.New()
	for _, c := range creds {
		for _, s := range []string{c.auth.Username, c.auth.Password, c.auth.IdentityToken, c.auth.RegistryToken} {
			fmt.Fprintf(h, "%d:%s", len(s), s)
		}
	}
	return string(h.Sum(nil))
}
