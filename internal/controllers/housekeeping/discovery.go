package housekeeping

import (
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// kindLister lists the kinds that a server serves.
type kindLister func() ([]*metav1.APIResourceList, error)

// neverEmpty asks once and then falls back to the last answer, with the error beside it. Upstream's
// namespace controller ends the whole process when a discovery returns nothing at all; ours may run
// while the term ends, when every request is refused, and must not take the API server with it.
func neverEmpty(ask kindLister) (kindLister, error) {
	known, err := ask()
	if len(known) == 0 {
		return nil, fmt.Errorf("what kinds there are: %w", err)
	}
	var mu sync.Mutex
	return func() ([]*metav1.APIResourceList, error) {
		fresh, err := ask()
		mu.Lock()
		defer mu.Unlock()
		if len(fresh) > 0 {
			known = fresh
		}
		return known, err
	}, nil
}
