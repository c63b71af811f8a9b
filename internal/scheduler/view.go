package scheduler

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/informers/core"
	coreinformers "k8s.io/client-go/informers/core/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// view is the shared informers as upstream's scheduler must see them: without the pods that have
// ended. It takes every pod it sees on a node for one that uses the node's room, and relies on its
// informer's field selector (status.phase is neither Succeeded nor Failed) to leave the ended ones
// out. Filtering a shared informer instead saves a second copy of every pod in memory.
type view struct {
	informers.SharedInformerFactory
}

// Core implements informers.SharedInformerFactory.
func (v view) Core() core.Interface { return coreView{v.SharedInformerFactory.Core()} }

type coreView struct{ core.Interface }

func (v coreView) V1() coreinformers.Interface { return coreV1View{v.Interface.V1()} }

type coreV1View struct{ coreinformers.Interface }

func (v coreV1View) Pods() coreinformers.PodInformer { return livePods{v.Interface.Pods()} }

// livePods is a pod informer of the pods that have not ended.
type livePods struct{ coreinformers.PodInformer }

func (p livePods) Informer() cache.SharedIndexInformer {
	return liveInformer{p.PodInformer.Informer()}
}

func (p livePods) Lister() corelisters.PodLister { return liveLister{p.PodInformer.Lister()} }

// liveInformer tells handlers about live pods only; a pod that ends is deleted for them.
type liveInformer struct{ cache.SharedIndexInformer }

func (i liveInformer) AddEventHandler(h cache.ResourceEventHandler) (cache.ResourceEventHandlerRegistration, error) {
	return i.SharedIndexInformer.AddEventHandler(onlyLive(h))
}

func (i liveInformer) AddEventHandlerWithResyncPeriod(h cache.ResourceEventHandler, d time.Duration) (cache.ResourceEventHandlerRegistration, error) {
	return i.SharedIndexInformer.AddEventHandlerWithResyncPeriod(onlyLive(h), d)
}

func (i liveInformer) AddEventHandlerWithOptions(h cache.ResourceEventHandler, o cache.HandlerOptions) (cache.ResourceEventHandlerRegistration, error) {
	return i.SharedIndexInformer.AddEventHandlerWithOptions(onlyLive(h), o)
}

func onlyLive(h cache.ResourceEventHandler) cache.ResourceEventHandler {
	return cache.FilteringResourceEventHandler{FilterFunc: liveObject, Handler: h}
}

// liveObject lets tombstones pass by the last state that was seen.
func liveObject(obj any) bool {
	if t, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = t.Obj
	}
	pod, ok := obj.(*corev1.Pod)
	return ok && live(pod)
}

func live(pod *corev1.Pod) bool {
	return pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

// liveLister lists live pods only.
type liveLister struct{ corelisters.PodLister }

func (l liveLister) List(s labels.Selector) ([]*corev1.Pod, error) {
	return filter(l.PodLister.List(s))
}

func (l liveLister) Pods(namespace string) corelisters.PodNamespaceLister {
	return liveNamespaceLister{l.PodLister.Pods(namespace)}
}

type liveNamespaceLister struct{ corelisters.PodNamespaceLister }

func (l liveNamespaceLister) List(s labels.Selector) ([]*corev1.Pod, error) {
	return filter(l.PodNamespaceLister.List(s))
}

func (l liveNamespaceLister) Get(name string) (*corev1.Pod, error) {
	pod, err := l.PodNamespaceLister.Get(name)
	if err != nil {
		return nil, err
	}
	if !live(pod) {
		return nil, apierrors.NewNotFound(corev1.Resource("pods"), name)
	}
	return pod, nil
}

func filter(pods []*corev1.Pod, err error) ([]*corev1.Pod, error) {
	if err != nil {
		return nil, err
	}
	var alive []*corev1.Pod
	for _, p := range pods {
		if live(p) {
			alive = append(alive, p)
		}
	}
	return alive, nil
}
