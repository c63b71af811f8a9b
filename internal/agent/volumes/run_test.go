package volumes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// running runs a test in a bubble, with Run beside it.
func running(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- w.Run(ctx) }()
		test(t, w)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// settle waits until the last change is done with, old data and all.
func settle() {
	synctest.Wait()
	time.Sleep(lookup)
	synctest.Wait()
}

func TestChangesAreSeenAtOnce(t *testing.T) {
	running(t, func(t *testing.T, w *world) {
		w.objects.setConfigMap("settings", map[string]string{"a": "1"})
		dir := w.setup(podOf(t, "u1", `{volumes: [{name: v, configMap: {name: settings}}]}`))["v"].Path
		w.objects.setConfigMap("settings", map[string]string{"a": "2", "b": "3"})
		synctest.Wait()
		if read(t, dir, "a") != "2" || read(t, dir, "b") != "3" {
			t.Error("the change is not there at once")
		}
		settle()
		w.objects.setConfigMap("settings", map[string]string{"b": "3"})
		settle()
		if exists(dir + "/a") {
			t.Error("a key that is gone is still there")
		}
		// The object goes: what is there stays, and its return is seen.
		settle()
		w.objects.mu.Lock()
		delete(w.objects.configMaps, "settings")
		w.objects.mu.Unlock()
		w.Update(podOf(t, "u1", `{volumes: [{name: v, configMap: {name: settings}}]}`))
		settle()
		if read(t, dir, "b") != "3" {
			t.Error("contents went with the object")
		}
		w.objects.setConfigMap("settings", map[string]string{"b": "4"})
		settle()
		if read(t, dir, "b") != "4" {
			t.Error("the object came back unseen")
		}
		w.teardown("u1")
		w.objects.setConfigMap("settings", map[string]string{"b": "5"})
		time.Sleep(time.Hour)
		if exists(filepath.Join(w.root, "u1")) {
			t.Error("a change made the volume of a pod that is gone")
		}
	})
}

func TestOptionalObjectsAppear(t *testing.T) {
	running(t, func(t *testing.T, w *world) {
		dir := w.setup(podOf(t, "u1", `{volumes: [{name: v, configMap: {name: later, optional: true}}]}`))["v"].Path
		w.objects.setConfigMap("later", map[string]string{"a": "1"})
		settle()
		if read(t, dir, "a") != "1" {
			t.Error("an optional ConfigMap that came later is not seen")
		}
	})
}

func TestTokensAreRenewed(t *testing.T) {
	running(t, func(t *testing.T, w *world) {
		dir := w.setup(podOf(t, "u1", `{serviceAccountName: sa, volumes: [{name: v, projected: {sources: [
			{serviceAccountToken: {path: long, expirationSeconds: 36000}},
			{serviceAccountToken: {path: short, expirationSeconds: 1000}}]}}]}`))["v"].Path
		first := read(t, dir, "short")
		time.Sleep(700 * time.Second)
		if read(t, dir, "short") != first {
			t.Error("renewed too early")
		}
		w.objects.failWith(errors.New("the server is away"))
		time.Sleep(150 * time.Second)
		if read(t, dir, "short") != first {
			t.Error("a token that could not be renewed was not kept")
		}
		w.objects.failWith(nil)
		time.Sleep(retryAfter)
		settle()
		if read(t, dir, "short") == first {
			t.Error("the token was not renewed after the server came back")
		}
		used := w.objects.tokens
		w.teardown("u1")
		time.Sleep(24 * time.Hour)
		if w.objects.tokens != used {
			t.Error("tokens are renewed for a pod that is gone")
		}
	})
}

func TestLabelsAreSeen(t *testing.T) {
	running(t, func(t *testing.T, w *world) {
		const spec = `{volumes: [{name: v, downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}]}`
		dir := w.setup(podOf(t, "u1", spec))["v"].Path
		changed := podOf(t, "u1", spec)
		changed.Labels = map[string]string{"app": "db"}
		w.Update(changed)
		settle()
		if got := read(t, dir, "labels"); got != `app="db"` {
			t.Errorf("got %s", got)
		}
		w.Update(podOf(t, "unknown", spec))
		settle()
		if len(w.pods) != 1 {
			t.Error("an unknown pod is remembered")
		}
	})
}

func TestAnIdleManagerSleeps(t *testing.T) {
	running(t, func(t *testing.T, w *world) {
		w.objects.setConfigMap("settings", map[string]string{"a": "1"})
		dir := w.setup(podOf(t, "u1", `{volumes: [{name: v, configMap: {name: settings}}, {name: e, emptyDir: {}}]}`))["v"].Path
		data, err := os.Readlink(dir + "/..data")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(24 * time.Hour)
		if again, _ := os.Readlink(dir + "/..data"); again != data {
			t.Error("contents that did not change were written again")
		}
		if w.mu.Lock(); !w.pods["u1"].due.IsZero() {
			t.Error("something is due although nothing can have changed")
		}
		w.mu.Unlock()
	})
}

// Readers open the folder once and read both files; they must belong together.
func TestSwapsAreAtomic(t *testing.T) {
	dir := t.TempDir()
	put := func(i int) {
		t.Helper()
		text := []byte(fmt.Sprint(i))
		if err := replace(dir, payload{"a": {text, 0o644, nil}, "sub/b": {text, 0o644, nil}}, func() error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	put(0)
	stop := make(chan struct{})
	var reading sync.WaitGroup
	for range 2 {
		reading.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := readTogether(dir); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for i := range 100 {
		put(i)
	}
	close(stop)
	reading.Wait()
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 4 { // ..data, its target, a, sub
		t.Errorf("%v, %v; want no leftovers", entries, err)
	}
}

func readTogether(dir string) error {
	root, err := os.OpenRoot(filepath.Join(dir, current))
	if errors.Is(err, os.ErrNotExist) {
		return nil // on a busy machine a reader may stop between the link and its target for as long as that is kept
	}
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	a, errA := root.ReadFile("a")
	b, errB := root.ReadFile("sub/b")
	if errors.Is(errA, os.ErrNotExist) || errors.Is(errB, os.ErrNotExist) {
		return nil // this version was swept meanwhile
	}
	if string(a) != string(b) {
		return fmt.Errorf("a mixture: %q and %q: %w", a, b, errors.Join(errA, errB))
	}
	// What programs open is always there, but for a reader that was stopped as above: not three times in a row.
	for range 3 {
		if _, err = os.Stat(filepath.Join(dir, "a")); err == nil {
			return nil
		}
	}
	return fmt.Errorf("the file vanished: %w", err)
}

func TestLeftoversOfAKillAreSwept(t *testing.T) {
	dir := t.TempDir()
	files := payload{"a": {[]byte("1"), 0o644, nil}}
	none := func() error { return nil }
	if err := replace(dir, files, none); err != nil {
		t.Fatal(err)
	}
	write(t, "half", dir, "..2026_01_02_03_04_05.6", "a")
	for link, target := range map[string]string{"..data_tmp": "..2026_01_02_03_04_05.6", "old": "..data/old"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	write(t, "", dir, "mountpoint", "file")
	if err := os.Remove(filepath.Join(dir, "a")); err != nil { // killed before it was linked
		t.Fatal(err)
	}
	if err := replace(dir, payload{"a": {[]byte("1"), 0o644, nil}, "b": {[]byte("1"), 0o644, nil}}, none); err != nil {
		t.Fatal(err)
	}
	if read(t, dir, "a") != "1" || read(t, dir, "b") != "1" {
		t.Error("the file is not visible")
	}
	for _, gone := range []string{"..data_tmp", "old", "..2026_01_02_03_04_05.6"} {
		if exists(filepath.Join(dir, gone)) {
			t.Errorf("%s is left", gone)
		}
	}
	if !exists(filepath.Join(dir, "mountpoint/file")) {
		t.Error("what is not ours was removed")
	}
	broken := errors.New("chown failed")
	if err := replace(dir, payload{"a": {[]byte("2"), 0o644, nil}}, func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if read(t, dir, "a") != "1" {
		t.Error("contents whose owner could not be set became visible")
	}
}

func TestFactsOfTheNodeAreSeen(t *testing.T) {
	w := newWorld(t)
	pod := podOf(t, "u1", `{volumes: [{name: v, downwardAPI: {items: [{path: mem, resourceFieldRef: {containerName: all, resource: limits.memory}}]}}]}`)
	for _, memory := range []string{"1Gi", "2Gi"} {
		vols, err := w.Setup(t.Context(), pod, Facts{Allocatable: list("memory", memory)})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := read(t, vols["v"].Path, "mem"), fmt.Sprint(quantity(memory)); got != want {
			t.Errorf("%s: %s; want %s", memory, got, want)
		}
	}
}

func list(name, amount string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceName(name): resource.MustParse(amount)}
}

func quantity(amount string) int64 {
	q := resource.MustParse(amount)
	return q.Value()
}

func TestWhatIsWrongIsSaidOnce(t *testing.T) {
	p := &podVolumes{}
	gone, forbidden := errors.New("not found"), errors.New("forbidden")
	for i, step := range []struct {
		volume string
		err    error
		want   bool
	}{
		{"v", nil, false}, {"v", gone, true}, {"v", gone, false}, {"w", gone, true},
		{"v", forbidden, true}, {"v", nil, false}, {"v", forbidden, true},
	} {
		if got := p.news(step.volume, step.err); got != step.want {
			t.Errorf("%d: %s with %v is news: %v", i, step.volume, step.err, got)
		}
	}
}
