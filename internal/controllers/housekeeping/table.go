package housekeeping

import (
	"context"
	"fmt"
	"os"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/dynamic"
	certificatesinformers "k8s.io/client-go/informers/certificates/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/scale"
	certutil "k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/bootstrap"
	"k8s.io/kubernetes/pkg/controller/certificates/cleaner"
	"k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher"
	"k8s.io/kubernetes/pkg/controller/certificates/signer"
	"k8s.io/kubernetes/pkg/controller/clusterroleaggregation"
	"k8s.io/kubernetes/pkg/controller/deployment"
	"k8s.io/kubernetes/pkg/controller/disruption"
	"k8s.io/kubernetes/pkg/controller/endpoint"
	"k8s.io/kubernetes/pkg/controller/endpointslice"
	"k8s.io/kubernetes/pkg/controller/endpointslicemirroring"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/podgc"
	"k8s.io/kubernetes/pkg/controller/replicaset"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
	"k8s.io/kubernetes/pkg/controller/volume/persistentvolume"
	"k8s.io/kubernetes/pkg/controller/volume/pvcprotection"
	"k8s.io/kubernetes/pkg/controller/volume/pvprotection"
	sa "k8s.io/kubernetes/pkg/serviceaccount"

	"github.com/everynode/everynode/internal/controllers/housekeeping/ranges"
)

// Upstream's defaults (pkg/controller/*/config/v1alpha1) where a constructor takes them.
const (
	workers                    = 5
	garbageWorkers             = 20
	garbageSyncPeriod          = 30 * time.Second
	namespaceWorkers           = 10
	namespaceResync            = 5 * time.Minute
	maxEndpointsPerSlice       = 100
	maxMirroredPerSubset       = 1000
	terminatedPodThreshold     = 12500
	volumeSyncPeriod           = 15 * time.Second
	defaultCertificateLifetime = 365 * 24 * time.Hour
)

// Controller is one row of the table.
type Controller struct {
	// Name is the controller's user agent and the name in its log lines.
	Name string
	// Does says in one line what would be missing without it.
	Does string

	build func(context.Context, *environment) (func(context.Context), error)
}

// Controllers is the table, in the order of construction. All of them run at the same time.
func Controllers() []Controller {
	return []Controller{
		{"namespace-controller", "empties a namespace that is being deleted, and lets it go", buildNamespace},
		{"garbage-collector", "deletes what a deleted owner owned: background, foreground and orphan", buildGarbageCollector},
		{"service-account-controller", "keeps a ServiceAccount named default in every namespace", buildServiceAccounts},
		{"service-account-tokens", "fills Secrets of type service-account-token, and removes them with their account", buildTokens},
		{"root-ca-publisher", "keeps the ConfigMap kube-root-ca.crt in every namespace", buildRootCA},
		{"endpoints-controller", "lists the ready pods of each Service as Endpoints", buildEndpoints},
		{"endpointslice-controller", "lists the pods of each Service as EndpointSlices", buildEndpointSlices},
		{"endpointslicemirroring-controller", "mirrors hand-made Endpoints as EndpointSlices", buildEndpointSliceMirroring},
		{"deployment-controller", "rolls Deployments out through ReplicaSets", buildDeployments},
		{"replicaset-controller", "keeps the wanted number of pods of each ReplicaSet", buildReplicaSets},
		{"node-ipam", "gives each node its range of pod addresses; an event on the node tells when none is left", buildNodeIPAM},
		{"pod-garbage-collector", "deletes pods of nodes that are gone, and the oldest of very many ended pods", buildPodGC},
		{"persistentvolume-binder", "binds PersistentVolumeClaims to PersistentVolumes", buildVolumeBinder},
		{"pv-protection", "keeps a deleted PersistentVolume until no claim is bound to it", buildPVProtection},
		{"pvc-protection", "keeps a deleted PersistentVolumeClaim until no pod uses it", buildPVCProtection},
		{"disruption-controller", "counts how many pods each PodDisruptionBudget lets be evicted", buildDisruption},
		{"clusterrole-aggregation", "gathers the rules of aggregated ClusterRoles", buildClusterRoleAggregation},
		{"certificate-signer-kubelet-client", "signs approved client certificates of nodes", buildSigner(signer.NewKubeletClientCSRSigningController)},
		{"certificate-signer-kubelet-serving", "signs approved serving certificates of nodes", buildSigner(signer.NewKubeletServingCSRSigningController)},
		{"certificate-signer-client", "signs approved client certificates of users", buildSigner(signer.NewKubeAPIServerClientCSRSigningController)},
		{"certificate-cleaner", "deletes old CertificateSigningRequests", buildCertificateCleaner},
		{"bootstrap-token-cleaner", "deletes expired join tokens", buildTokenCleaner},
	}
}

func buildNamespace(ctx context.Context, e *environment) (func(context.Context), error) {
	const name = "namespace-controller"
	client, err := e.clients.kubernetes(name)
	if err != nil {
		return nil, err
	}
	metadata, err := e.clients.metadata(name)
	if err != nil {
		return nil, err
	}
	discover, err := neverEmpty(client.Discovery().ServerPreferredNamespacedResources)
	if err != nil {
		return nil, err
	}
	c := namespace.NewNamespaceController(ctx, client, metadata, discover,
		e.Informers.Core().V1().Namespaces(), namespaceResync, corev1.FinalizerKubernetes)
	return func(ctx context.Context) { c.Run(ctx, namespaceWorkers) }, nil
}

func buildGarbageCollector(ctx context.Context, e *environment) (func(context.Context), error) {
	const name = "garbage-collector"
	client, err := e.clients.kubernetes(name)
	if err != nil {
		return nil, err
	}
	metadata, err := e.clients.metadata(name)
	if err != nil {
		return nil, err
	}
	discovery, err := e.clients.discovery(name) // not the mapper's: a sync must not reset that
	if err != nil {
		return nil, err
	}
	informers := &garbageInformers{shared: e.Informers, metadata: e.metadata, full: sharedResources()}
	c, err := garbagecollector.NewGarbageCollector(ctx, client, metadata, e.mapper,
		garbagecollector.DefaultIgnoredResources(), informers, e.started)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) {
		go c.Sync(ctx, discovery, garbageSyncPeriod)
		c.Run(ctx, garbageWorkers, garbageSyncPeriod)
	}, nil
}

func buildServiceAccounts(ctx context.Context, e *environment) (func(context.Context), error) {
	client, err := e.clients.kubernetes("service-account-controller")
	if err != nil {
		return nil, err
	}
	c, err := serviceaccount.NewServiceAccountsController(klog.FromContext(ctx),
		e.Informers.Core().V1().ServiceAccounts(), e.Informers.Core().V1().Namespaces(), client,
		serviceaccount.DefaultServiceAccountsControllerOptions())
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { c.Run(ctx, 1) }, nil
}

func buildTokens(ctx context.Context, e *environment) (func(context.Context), error) {
	client, err := e.clients.kubernetes("service-account-tokens")
	if err != nil {
		return nil, err
	}
	key, err := keyutil.PrivateKeyFromFile(e.SAKeyFile)
	if err != nil {
		return nil, fmt.Errorf("service account key %s: %w", e.SAKeyFile, err)
	}
	generator, err := sa.JWTTokenGenerator(sa.LegacyIssuer, key)
	if err != nil {
		return nil, fmt.Errorf("service account key %s: %w", e.SAKeyFile, err)
	}
	ca, err := readCA(e.CAFile)
	if err != nil {
		return nil, err
	}
	c, err := serviceaccount.NewTokensController(klog.FromContext(ctx), e.Informers.Core().V1().ServiceAccounts(),
		e.Informers.Core().V1().Secrets(), client, serviceaccount.TokensControllerOptions{TokenGenerator: generator, RootCA: ca})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { c.Run(ctx, workers) }, nil
}

func buildRootCA(_ context.Context, e *environment) (func(context.Context), error) {
	client, err := e.clients.kubernetes("root-ca-publisher")
	if err != nil {
		return nil, err
	}
	ca, err := readCA(e.CAFile)
	if err != nil {
		return nil, err
	}
	c, err := rootcacertpublisher.NewPublisher(e.rootCAs(client).Core().V1().ConfigMaps(), e.Informers.Core().V1().Namespaces(), client, ca)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { c.Run(ctx, 1) }, nil
}

func buildEndpoints(ctx context.Context, e *environment) (func(context.Context), error) {
	client, err := e.clients.kubernetes("endpoints-controller")
	if err != nil {
		return nil, err
	}
	core := e.Informers.Core().V1()
	c := endpoint.NewEndpointController(ctx, core.Pods(), core.Services(), core.Endpoints(), client, 0)
	return func(ctx context.Context) { c.Run(ctx, workers) }, nil
}

func buildEndpointSlices(ctx context.Context, e *environment) (func(context.Context), error) {
	client, err := e.clients.kubernetes("endpointslice-controller")
	if err != nil {
		return nil, err
	}
	core := e.Informers.Core().V1()
	c := endpointslice.NewController(ctx, core.Pods(), core.Services(), zoneNodes{core.Nodes()},
		e.Informers.Discovery().V1().EndpointSlices(), maxEndpointsPerSlice, client, 0)
	return func(ctx context.Context) { c.Run(ctx, workers) }, nil
}

func buildEndpointSliceMirroring(ctx context.Context, e *environment) (func(context.Context), error) {
	client, err := e.clients.kubernetes("endpointslicemirroring-controller")
	if err != nil {
		return nil, err
	}
	core := e.Informers.Core().V1()
	c := endpointslicemirroring.NewController(ctx, core.Endpoints(), e.Informers.Discovery().V1().EndpointSlices(),
		core.Services(), maxMirroredPerSubset, client, 0)
	return func(ctx context.Context) { c.Run(ctx, workers) }, nil
}

func buildDeployments(ctx context.Context, e *environment) (func(context.Context), error) {
	client, err := e.clients.kubernetes("deployment-controller")
	if err != nil {
		return nil, err
	}
	apps := e.Informers.Apps().V1()
	c, err := deployment.NewDeploymentController(ctx, apps.Deployments(), apps.ReplicaSets(), e.Informers.Core().V1().Pods(), client)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { c.Run(ctx, workers) }, nil
}

func buildReplicaSets(ctx context.Context, e *environment) (func(context.Context), error) {
	client, err := e.clients.kubernetes("replicaset-controller")
	if err != nil {
		return nil, err
	}
	c := replicaset.NewReplicaSetController(ctx, e.Informers.Apps().V1().ReplicaSets(), e.Informers.Core().V1().Pods(),
		client, replicaset.BurstReplicas)
	return func(ctx context.Context) { c.Run(ctx, workers) }, nil
}

func buildNodeIPAM(_ context.Context, e *environment) (func(context.Context), error) {
	client, err := e.clients.kubernetes("node-ipam")
	if err != nil {
		return nil, err
	}
	ledger := e.Ranges
	if ledger == nil {
		ledger = &ranges.Ledger{}
	}
	c, err := ranges.New(ranges.Options{
		Nodes: e.Informers.Core().V1().Nodes(), Ledger: ledger, Client: client, Recorder: e.Recorder,
		ClusterCIDR: e.ClusterCIDR, MaskSize: e.NodeCIDRMaskSize, ServiceCIDR: e.ServiceCIDR,
	})
	if err != nil {
		return nil, err
	}
	return c.Run, nil
}

func buildPodGC(ctx context.Context, e *environment) (func(context.Context), error) {
	client, err := e.clients.kubernetes("pod-garbage-collector")
	if err != nil {
		return nil, err
	}
	core := e.Informers.Core().V1()
	return podgc.NewPodGC(ctx, client, core.Pods(), core.Nodes(), terminatedPodThreshold).Run, nil
}

// buildVolumeBinder gives the binder no volume plugins: those make and wipe volumes on the
// controller's own machine (hostPath, NFS recycling), which is not where a volume is. Volumes made
// by hand and by external provisioners need none.
func buildVolumeBinder(ctx context.Context, e *environment) (func(context.Context), error) {
	client, err := e.clients.kubernetes("persistentvolume-binder")
	if err != nil {
		return nil, err
	}
	core := e.Informers.Core().V1()
	c, err := persistentvolume.NewController(ctx, persistentvolume.ControllerParameters{
		KubeClient:                client,
		SyncPeriod:                volumeSyncPeriod,
		VolumeInformer:            core.PersistentVolumes(),
		ClaimInformer:             core.PersistentVolumeClaims(),
		ClassInformer:             e.Informers.Storage().V1().StorageClasses(),
		PodInformer:               core.Pods(),
		NodeInformer:              core.Nodes(),
		EnableDynamicProvisioning: true,
	})
	if err != nil {
		return nil, err
	}
	return c.Run, nil
}

func buildPVProtection(ctx context.Context, e *environment) (func(context.Context), error) {
	client, err := e.clients.kubernetes("pv-protection")
	if err != nil {
		return nil, err
	}
	c := pvprotection.NewPVProtectionController(klog.FromContext(ctx), e.Informers.Core().V1().PersistentVolumes(), client)
	return func(ctx context.Context) { c.Run(ctx, 1) }, nil
}

func buildPVCProtection(ctx context.Context, e *environment) (func(context.Context), error) {
	client, err := e.clients.kubernetes("pvc-protection")
	if err != nil {
		return nil, err
	}
	core := e.Informers.Core().V1()
	c, err := pvcprotection.NewPVCProtectionController(klog.FromContext(ctx), core.PersistentVolumeClaims(), core.Pods(), client)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) { c.Run(ctx, 1) }, nil
}

func buildDisruption(ctx context.Context, e *environment) (func(context.Context), error) {
	const name = "disruption-controller"
	client, err := e.clients.kubernetes(name)
	if err != nil {
		return nil, err
	}
	cfg, _ := e.clients.named(name)
	scales, err := scale.NewForConfig(cfg, e.mapper, dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(client.Discovery()))
	if err != nil {
		return nil, err
	}
	apps := e.Informers.Apps().V1()
	core := e.Informers.Core().V1()
	c := disruption.NewDisruptionController(ctx, core.Pods(), e.Informers.Policy().V1().PodDisruptionBudgets(),
		core.ReplicationControllers(), apps.ReplicaSets(), apps.Deployments(), apps.StatefulSets(),
		client, e.mapper, scales, client.Discovery())
	return c.Run, nil
}

func buildClusterRoleAggregation(_ context.Context, e *environment) (func(context.Context), error) {
	client, err := e.clients.kubernetes("clusterrole-aggregation")
	if err != nil {
		return nil, err
	}
	c := clusterroleaggregation.NewClusterRoleAggregation(e.Informers.Rbac().V1().ClusterRoles(), client.RbacV1())
	return func(ctx context.Context) { c.Run(ctx, workers) }, nil
}

func buildCertificateCleaner(_ context.Context, e *environment) (func(context.Context), error) {
	client, err := e.clients.kubernetes("certificate-cleaner")
	if err != nil {
		return nil, err
	}
	c := cleaner.NewCSRCleanerController(client.CertificatesV1().CertificateSigningRequests(),
		e.Informers.Certificates().V1().CertificateSigningRequests())
	return func(ctx context.Context) { c.Run(ctx, 1) }, nil
}

func buildTokenCleaner(_ context.Context, e *environment) (func(context.Context), error) {
	client, err := e.clients.kubernetes("bootstrap-token-cleaner")
	if err != nil {
		return nil, err
	}
	c, err := bootstrap.NewTokenCleaner(client, e.Informers.Core().V1().Secrets(), bootstrap.DefaultTokenCleanerOptions())
	if err != nil {
		return nil, err
	}
	return c.Run, nil
}

// newSigner is the shape of upstream's constructors, one for each signer name.
type newSigner func(ctx context.Context, client kubernetes.Interface, csrs certificatesinformers.CertificateSigningRequestInformer,
	caFile, caKeyFile string, ttl time.Duration) (*signer.CSRSigningController, error)

func buildSigner(construct newSigner) func(context.Context, *environment) (func(context.Context), error) {
	return func(ctx context.Context, e *environment) (func(context.Context), error) {
		client, err := e.clients.kubernetes("certificate-signer")
		if err != nil {
			return nil, err
		}
		ttl := e.CertificateTTL
		if ttl <= 0 {
			ttl = defaultCertificateLifetime
		}
		c, err := construct(ctx, client, e.Informers.Certificates().V1().CertificateSigningRequests(), e.CAFile, e.CAKeyFile, ttl)
		if err != nil {
			return nil, fmt.Errorf("CA %s with key %s: %w", e.CAFile, e.CAKeyFile, err)
		}
		return func(ctx context.Context) { c.Run(ctx, workers) }, nil
	}
}

func readCA(file string) ([]byte, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("CA certificate: %w", err)
	}
	if _, err := certutil.ParseCertsPEM(pem); err != nil {
		return nil, fmt.Errorf("CA certificate %s: %w", file, err)
	}
	return pem, nil
}
