package identity

import (
	"context"
	"errors"
	"slices"
	"testing"

	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
)

// Reasons that take turns are told once each, also where each try has a port of its own.
func TestNoteRepeatsNoReason(t *testing.T) {
	logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true)))
	ctx := klog.NewContext(context.Background(), logger)
	var n note
	for _, reason := range []string{
		"EOF", "read tcp 192.0.2.1:40001->192.0.2.9:6443: connection reset by peer",
		"EOF", "read tcp 192.0.2.1:40002->192.0.2.9:6443: connection reset by peer", "read tcp 192.0.2.1:40003->192.0.2.8:6443: connection reset by peer",
	} {
		n.log(ctx, errors.New(reason))
	}
	var said []string
	for _, entry := range logger.GetSink().(ktesting.Underlier).GetBuffer().Data() {
		said = append(said, entry.Err.Error())
	}
	want := []string{"EOF", "read tcp 192.0.2.1->192.0.2.9:6443: connection reset by peer", "read tcp 192.0.2.1->192.0.2.8:6443: connection reset by peer"}
	if !slices.Equal(said, want) {
		t.Errorf("said %q, want %q", said, want)
	}
}
