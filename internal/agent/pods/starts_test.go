package pods

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestContainersGoFirst: pods that were begun are finished before others are begun.
func TestContainersGoFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &starts{most: 1}
		release, err := s.slot(t.Context(), begins)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, who := range []struct {
			name string
			o    order
		}{{"sandbox 1", begins}, {"sandbox 2", begins}, {"container 1", finishes}, {"container 2", finishes}} {
			go func() {
				release, err := s.slot(t.Context(), who.o)
				if err != nil {
					t.Error(err)
					return
				}
				got = append(got, who.name)
				release()
			}()
			synctest.Wait()
		}
		release()
		synctest.Wait()
		if diff := cmp.Diff([]string{"container 1", "container 2", "sandbox 1", "sandbox 2"}, got); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
		if s.running != 0 {
			t.Errorf("%d starts run", s.running)
		}
	})
}

// TestStartsAreBounded, and whoever gives up takes no turn from others.
func TestStartsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 6
		s := &starts{most: most}
		var mu sync.Mutex
		now, peak, done := 0, 0, 0
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 50 {
			go func() {
				ctx := ctx
				if i%3 != 0 {
					ctx = t.Context()
				}
				release, err := s.slot(ctx, order(i%int(orders)))
				if err != nil {
					return
				}
				mu.Lock()
				now++
				peak = max(peak, now)
				mu.Unlock()
				time.Sleep(time.Second)
				mu.Lock()
				now, done = now-1, done+1
				mu.Unlock()
				release()
			}()
		}
		synctest.Wait()
		cancel()
		time.Sleep(time.Minute)
		if peak != most || now != 0 || s.running != 0 || slices.ContainsFunc(s.waiting[:], func(q []chan struct{}) bool { return len(q) > 0 }) {
			t.Errorf("%d at once, %d still run, %+v", peak, now, s)
		}
		if done < 33 {
			t.Errorf("%d were started", done)
		}
	})
}

// TestGivenUpTurnIsPassedOn: a turn granted at the moment when its owner gives up is not lost.
func TestGivenUpTurnIsPassedOn(t *testing.T) {
	s := &starts{most: 1}
	release, _ := s.slot(t.Context(), begins)
	turn := make(chan struct{})
	s.waiting[begins] = append(s.waiting[begins], turn)
	release() // grants it
	s.giveUp(begins, turn)
	if s.running != 0 {
		t.Errorf("%d starts run", s.running)
	}
}
