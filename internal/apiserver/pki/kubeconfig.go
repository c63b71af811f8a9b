package pki

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/everynode/everynode/internal/atomicfile"
)

const cluster = "everynode"

// WriteKubeconfig makes path a kubeconfig for the user commonName in the groups orgs, with everything embedded. A
// file that is still right is left as it is; one that is not a kubeconfig is not overwritten.
func (b *Bundle) WriteKubeconfig(path, serverURL, commonName string, orgs ...string) error {
	want := leaf{commonName: commonName, orgs: orgs, usage: x509.ExtKeyUsageClientAuth}
	renew := func() error { return b.ensureKubeconfig(path, serverURL, want) }
	if err := renew(); err != nil {
		return err
	}
	b.keep(path, renew)
	return nil
}

func (b *Bundle) ensureKubeconfig(path, serverURL string, want leaf) error {
	right, err := b.kubeconfigServes(path, serverURL, want)
	if err != nil {
		return err
	}
	if right {
		return atomicfile.Restrict(path)
	}
	certPEM, keyPEM, err := b.sign(want)
	if err != nil {
		return fmt.Errorf("issue the certificate of %s: %w", path, err)
	}
	data, err := clientcmd.Write(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{cluster: {Server: serverURL, CertificateAuthorityData: b.keys.certPEM}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{want.commonName: {ClientCertificateData: certPEM, ClientKeyData: keyPEM}},
		Contexts:       map[string]*clientcmdapi.Context{cluster: {Cluster: cluster, AuthInfo: want.commonName}},
		CurrentContext: cluster,
	})
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	return atomicfile.Write(path, data)
}

// kubeconfigServes says whether path is what ensureKubeconfig would write.
func (b *Bundle) kubeconfigServes(path, serverURL string, want leaf) (bool, error) {
	data, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("read the kubeconfig: %w", err)
	case len(data) == 0:
		return false, nil
	}
	c, err := clientcmd.Load(data)
	if err != nil {
		return false, fmt.Errorf("%s is not a kubeconfig (%w): remove it, and %s is written anew at the next start", path, err, filepath.Base(path))
	}
	cl, user := c.Clusters[cluster], c.AuthInfos[want.commonName]
	return cl != nil && user != nil && cl.Server == serverURL && bytes.Equal(cl.CertificateAuthorityData, b.keys.certPEM) &&
		b.serves(user.ClientCertificateData, user.ClientKeyData, want), nil
}
