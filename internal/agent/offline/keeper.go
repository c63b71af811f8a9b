package offline

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"

	"github.com/everynode/everynode/internal/agent/objects"
)

// Remembered tells that a pod may be run with no server in sight: it is a DaemonSet's, which belongs
// to this node as long as nobody says otherwise, and it has neither ended nor been told to.
func Remembered(pod *corev1.Pod) bool {
	owner := metav1.GetControllerOfNoCopy(pod)
	return owner != nil && owner.Kind == "DaemonSet" && owner.APIVersion == "apps/v1" &&
		pod.DeletionTimestamp == nil && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed
}

// Objects are what pods use, as far as it is known; *objects.Cache is the real one.
type Objects interface {
	// Known is the object if it is known to exist, else nil.
	Known(ref objects.Ref) any
	// Recall hands out objects remembered from before, until the server has been heard.
	Recall(configMaps []*corev1.ConfigMap, secrets []*corev1.Secret)
	// Heard ends that.
	Heard()
	Subscribe(f func(objects.Ref)) (cancel func())
}

// Keeper keeps the record in step with what runs. Its methods return at once; Run does the work.
type Keeper struct {
	record  *Record
	objects Objects
	wake    chan struct{}

	mu   sync.Mutex
	pods map[types.UID]*kept
	// files are the pods of which there is a record, due those whose record has to be looked at.
	files, due map[types.UID]bool
}

// kept is a pod that is remembered; nil stands for one that is not to be.
type kept struct {
	pod  *corev1.Pod
	refs map[objects.Ref]bool
	// written is the hash of what is on disk; only Run touches it.
	written [sha256.Size]byte
}

// NewKeeper keeps a record; the objects that pods use are found in o.
func NewKeeper(record *Record, o Objects) *Keeper {
	k := &Keeper{record: record, objects: o, wake: make(chan struct{}, 1), pods: map[types.UID]*kept{}, files: map[types.UID]bool{}, due: map[types.UID]bool{}}
	uids, err := record.uids()
	if err != nil {
		klog.Background().Error(err, "The record of pods cannot be read")
	}
	for _, uid := range uids {
		k.files[uid] = true
	}
	return k
}

// Keep remembers a pod as it is now, or forgets it if it is not one to be remembered.
func (k *Keeper) Keep(pod *corev1.Pod) {
	if !Remembered(pod) {
		k.Drop(pod.UID)
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.pods[pod.UID]
	if p == nil {
		p = &kept{}
		k.pods[pod.UID] = p
	}
	p.pod, p.refs = pod, map[objects.Ref]bool{}
	for _, ref := range objects.References(pod) {
		p.refs[ref] = true
	}
	k.touchLocked(pod.UID)
}

// Drop forgets a pod.
func (k *Keeper) Drop(uid types.UID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dropLocked(uid)
}

func (k *Keeper) dropLocked(uid types.UID) {
	if k.pods[uid] == nil && !k.files[uid] {
		return
	}
	delete(k.pods, uid)
	k.touchLocked(uid)
}

// Only forgets all pods but those of which has is true: the server has been asked for them.
func (k *Keeper) Only(has func(types.UID) bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for uid := range k.files {
		if !has(uid) {
			k.dropLocked(uid)
		}
	}
}

func (k *Keeper) touchLocked(uid types.UID) {
	k.due[uid] = true
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// objectChanged has the pods written anew that use an object.
func (k *Keeper) objectChanged(ref objects.Ref) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for uid, p := range k.pods {
		if p.refs[ref] {
			k.touchLocked(uid)
		}
	}
}

// retryAfter is when a record is tried again that could not be written: the disk may be full.
const retryAfter = 30 * time.Second

// Run writes until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	defer k.objects.Subscribe(k.objectChanged)()
	told := ""
	for {
		var retry <-chan time.Time
		if failed := k.work(); failed != nil {
			retry = time.After(retryAfter)
			if told != failed.Error() {
				told = failed.Error()
				klog.FromContext(ctx).Error(failed, "A pod is not remembered; after a boot with no server it would not run")
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
		case <-retry:
		}
	}
}

// work looks at the pods that are due, and returns the last failure.
func (k *Keeper) work() (failed error) {
	k.mu.Lock()
	due := k.due
	k.due = map[types.UID]bool{}
	k.mu.Unlock()
	for uid := range due {
		if err := k.settle(uid); err != nil {
			failed = err
			k.mu.Lock()
			k.due[uid] = true
			k.mu.Unlock()
		}
	}
	return failed
}

// settle brings the record of one pod up to date.
func (k *Keeper) settle(uid types.UID) error {
	k.mu.Lock()
	p := k.pods[uid]
	var pod *corev1.Pod
	if p != nil {
		pod = p.pod
	}
	k.mu.Unlock()
	if p == nil {
		if err := k.record.forget(uid); err != nil {
			return err
		}
		k.noteFile(uid, false)
		return nil
	}
	text, err := json.Marshal(k.entry(pod))
	if err != nil {
		return err
	}
	hash := sha256.Sum256(text)
	if hash == p.written {
		return nil
	}
	k.noteFile(uid, true) // before there is one, so that it is never overlooked
	if err := k.record.save(uid, text); err != nil {
		return err
	}
	p.written = hash
	return nil
}

func (k *Keeper) noteFile(uid types.UID, is bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if is {
		k.files[uid] = true
	} else if k.pods[uid] == nil {
		delete(k.files, uid)
	}
}

// entry is the pod with what it uses. Of the pod it leaves out what changes while it runs.
func (k *Keeper) entry(pod *corev1.Pod) Entry {
	e := Entry{Pod: pod.DeepCopy()}
	e.Pod.Status = corev1.PodStatus{Phase: corev1.PodPending}
	e.Pod.ManagedFields = nil
	// An old version, whichever it is: the next thing heard of the pod is newer.
	e.Pod.ResourceVersion = "1"
	for _, ref := range objects.References(pod) {
		switch o := k.objects.Known(ref).(type) {
		case *corev1.ConfigMap:
			e.ConfigMaps = append(e.ConfigMaps, o)
		case *corev1.Secret:
			e.Secrets = append(e.Secrets, o)
		}
	}
	return e
}

// Recall returns the pods that are remembered, and hands out the objects that they use. What cannot
// be read is reported and forgotten. A machine that is nobody's node has nothing to recall.
func (k *Keeper) Recall(ctx context.Context) []*corev1.Pod {
	if k.record.holder() == "" {
		return nil
	}
	k.mu.Lock()
	uids := slices.Sorted(maps.Keys(k.files))
	k.mu.Unlock()
	var pods []*corev1.Pod
	for _, uid := range uids {
		e, err := k.record.load(uid)
		if err != nil {
			klog.FromContext(ctx).Error(err, "What is remembered of a pod is unusable and forgotten", "uid", uid)
			k.Drop(uid)
			continue
		}
		k.objects.Recall(e.ConfigMaps, e.Secrets)
		pods = append(pods, e.Pod)
	}
	return pods
}

// Heard says that the server has answered, and has the say about objects.
func (k *Keeper) Heard() { k.objects.Heard() }
