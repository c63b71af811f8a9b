package cluster

import (
	"context"
	"errors"
	"testing"
	"time"
)

type fatalError struct{ error }

// Fatal marks an error that waiting will not mend.
func Fatal(err error) error { return fatalError{err} }

// Await calls condition until it returns nil, and fails the test with its last error otherwise.
func Await(t testing.TB, what string, timeout time.Duration, condition func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var last error
	for {
		err := condition(ctx)
		var fatal fatalError
		switch {
		case err == nil:
			return
		case errors.As(err, &fatal):
			t.Fatalf("%s: %v", what, err)
		case ctx.Err() == nil:
			last = err
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s: %v", what, timeout, errors.Join(last, err))
		case <-time.After(25 * time.Millisecond):
		}
	}
}
