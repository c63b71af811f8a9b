package ranges

import (
	"context"
	"errors"
	"net"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kubernetes/pkg/controller/nodeipam/ipam/cidrset"
)

var (
	errExists = apierrors.NewAlreadyExists(schema.GroupResource{Resource: "nodes"}, "n")
	errSilent = apierrors.NewTimeoutError("no answer", 1)
)

// opened is a ledger of four ranges, in a term that lasts as long as the test.
func opened(t *testing.T) *Ledger {
	t.Helper()
	_, cluster, err := net.ParseCIDR("10.42.0.0/22")
	if err != nil {
		t.Fatal(err)
	}
	set, err := cidrset.NewCIDRSet(cluster, 24)
	if err != nil {
		t.Fatal(err)
	}
	l := &Ledger{}
	l.open(t.Context(), set)
	return l
}

// create is a node's create that ends with err; it returns the range that it was given.
func create(t *testing.T, l *Ledger, node string, err error) (cidr string) {
	t.Helper()
	got := l.With(t.Context(), node, func(_ context.Context, c string) error {
		cidr = c
		return err
	})
	if !errors.Is(got, err) {
		t.Errorf("With returned %v, create %v", got, err)
	}
	return cidr
}

func TestNoRangeTwice(t *testing.T) {
	l := opened(t)
	if err := l.take(l.free, "old", []string{"10.42.1.0/24"}); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{"10.42.1.0/24": true}
	for _, n := range []string{"a", "b", "c"} {
		cidr := create(t, l, n, nil)
		if cidr == "" || seen[cidr] {
			t.Errorf("%s was given %q, after %v", n, cidr, seen)
		}
		seen[cidr] = true
	}
	if cidr := create(t, l, "d", nil); cidr != "" {
		t.Errorf("a fifth range of four: %s", cidr)
	}
}

// What happens to a range depends on how the create ended: each story creates n, and says which range the next node gets.
func TestEnds(t *testing.T) {
	for name, c := range map[string]struct {
		story func(*Ledger)
		next  string
	}{
		"created": {func(l *Ledger) { create(t, l, "n", nil) }, "10.42.1.0/24"},
		"refused": {func(l *Ledger) { fill(t, l); create(t, l, "n", errExists) }, "10.42.3.0/24"},
		"no answer": {func(l *Ledger) {
			fill(t, l)
			create(t, l, "n", errSilent)
		}, ""},
		"refused after no answer: the first may have been stored": {func(l *Ledger) {
			fill(t, l)
			create(t, l, "n", errSilent)
			create(t, l, "n", errExists)
		}, ""},
		"refused after success: the node was not seen yet": {func(l *Ledger) {
			fill(t, l)
			create(t, l, "n", nil)
			create(t, l, "n", errExists)
		}, ""},
		"seen, then created again in vain": {func(l *Ledger) {
			cidr := create(t, l, "n", nil)
			if err := l.take(l.free, "n", []string{cidr}); err != nil {
				t.Error(err)
			}
			create(t, l, "n", errExists)
		}, "10.42.2.0/24"},
		"a panic": {func(l *Ledger) {
			fill(t, l)
			defer func() { _ = recover() }()
			_ = l.With(t.Context(), "n", func(context.Context, string) error { panic("in the registry") })
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l := opened(t)
			c.story(l)
			if got := create(t, l, "next", nil); got != c.next {
				t.Errorf("the next node was given %q, want %q", got, c.next)
			}
		})
	}
}

// fill leaves one range.
func fill(t *testing.T, l *Ledger) {
	t.Helper()
	for _, cidr := range []string{"10.42.0.0/24", "10.42.1.0/24", "10.42.2.0/24"} {
		if err := l.take(l.free, "node of "+cidr, []string{cidr}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSameNodeSameRange(t *testing.T) {
	l := opened(t)
	first := create(t, l, "n", errSilent)
	if again := create(t, l, "n", nil); again != first || first == "" {
		t.Errorf("given %q, then %q", first, again)
	}
}

func TestTwoOfOneNameAtOnce(t *testing.T) {
	l := opened(t)
	var inner string
	_ = l.With(t.Context(), "n", func(context.Context, string) error {
		inner = create(t, l, "n", nil)
		return errExists
	})
	if inner != "" {
		t.Errorf("the second was promised %s while the first was under way", inner)
	}
}

func TestEndOfTerm(t *testing.T) {
	l := opened(t)
	term, depose := context.WithCancel(t.Context())
	l.open(term, l.free)
	closed := make(chan struct{})
	_ = l.With(t.Context(), "n", func(ctx context.Context, cidr string) error {
		if cidr == "" {
			t.Error("no range")
		}
		depose()
		go func() { l.close(); close(closed) }()
		<-ctx.Done()
		if got := create(t, l, "late", nil); got != "" {
			t.Errorf("%s was given away after the term", got)
		}
		select {
		case <-closed:
			t.Error("closed while a create is under way")
		default:
		}
		return ctx.Err()
	})
	<-closed
}

func TestNotLeading(t *testing.T) {
	if got := create(t, &Ledger{}, "n", nil); got != "" {
		t.Errorf("given %s by a ledger that knows no nodes", got)
	}
}
