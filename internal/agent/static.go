package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2"
	"sigs.k8s.io/yaml"

	"github.com/everynode/everynode/internal/agent/manifests"
)

// kubeletFiles tell, relative to the root, that a kubelet is configured on a machine. The first one
// says which folder of manifests is its own.
var kubeletFiles = []string{
	"var/lib/kubelet/config.yaml", "etc/kubernetes/kubelet.conf", "etc/kubernetes/bootstrap-kubelet.conf",
	"etc/systemd/system/kubelet.service", "usr/lib/systemd/system/kubelet.service", "lib/systemd/system/kubelet.service",
}

// kubelet says by which file a kubelet is configured on this machine, "" if none is, and which folder
// of manifests it has.
func kubelet(root string) (file, folder string) {
	for _, name := range kubeletFiles {
		path := filepath.Join(root, name)
		if _, err := os.Stat(path); err == nil {
			file = path
			break
		}
	}
	if file == "" {
		return "", ""
	}
	var c struct {
		StaticPodPath string `json:"staticPodPath"`
	}
	data, err := os.ReadFile(filepath.Join(root, kubeletFiles[0]))
	if err == nil && yaml.Unmarshal(data, &c) == nil && c.StaticPodPath != "" {
		return file, filepath.Clean(c.StaticPodPath)
	}
	return file, DefaultPodManifestPath
}

// manifestFolder is the folder of static pods, "" for none. The folder of a kubelet on the same
// machine is left to it: both would run its pods. Somebody who names that very folder must choose,
// so that is an error; the default is merely not used, and why says so.
func manifestFolder(o Options, root string) (folder, why string, err error) {
	if o.PodManifestPath == "" {
		return "", "", nil
	}
	file, theirs := kubelet(root)
	if file == "" || filepath.Clean(o.PodManifestPath) != theirs {
		return o.PodManifestPath, "", nil
	}
	why = fmt.Sprintf("a kubelet is configured on this machine (%s), and the pods of %s are its own", file, theirs)
	if o.PodManifestPath == DefaultPodManifestPath {
		return "", why + "; static pods of this agent need a folder of their own: name one with --pod-manifest-path", nil
	}
	return "", why, fmt.Errorf("--pod-manifest-path %s: %s: name another folder, or remove the kubelet and that file", o.PodManifestPath, why)
}

// runStatic keeps the static pods in step with their manifests.
func (p *parts) runStatic(ctx context.Context) error {
	if p.manifests == "" {
		if p.noManifests != "" {
			klog.FromContext(ctx).Info("No static pods are run", "why", p.noManifests)
			p.events.recorder.Event(p.nodeRef, corev1.EventTypeNormal, "StaticPodsIgnored", p.noManifests)
		}
		p.pods.SetStatic(nil, nil)
		<-ctx.Done()
		return nil
	}
	var told []manifests.Problem
	manifests.NewFolder(p.manifests, p.o.NodeName).Follow(ctx, func(r manifests.Reading) {
		for _, problem := range r.Problems {
			if !slices.Contains(told, problem) {
				p.tellProblem(ctx, problem)
			}
		}
		told = r.Problems
		klog.FromContext(ctx).Info("Static pods", "folder", p.manifests, "pods", len(r.Pods), "unreadFiles", r.Unread)
		p.pods.SetStatic(r.Pods, r.Unread)
	})
	return nil
}

// tellProblem names a manifest that is wrong where somebody will look for it.
func (p *parts) tellProblem(ctx context.Context, problem manifests.Problem) {
	klog.FromContext(ctx).Info("A manifest is wrong", "file", problem.File, "err", problem.Message, "podsRun", problem.Minor)
	reason := "InvalidStaticPod"
	if problem.Minor {
		reason = "StaticPodWarning"
	}
	p.events.recorder.Event(p.nodeRef, corev1.EventTypeWarning, reason, truncate(problem.File+": "+problem.Message, 1000))
}

// truncate keeps to what an event can hold.
func truncate(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
