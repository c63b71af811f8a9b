package store

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// reasonedKV turns etcd's bare refusal of a write into an answer of the API that says why, and what to do.
type reasonedKV struct {
	clientv3.KV
	why func() error
}

func (k reasonedKV) Txn(ctx context.Context) clientv3.Txn { return reasonedTxn{k.KV.Txn(ctx), k.why} }

type reasonedTxn struct {
	clientv3.Txn
	why func() error
}

func (t reasonedTxn) If(c ...clientv3.Cmp) clientv3.Txn  { return reasonedTxn{t.Txn.If(c...), t.why} }
func (t reasonedTxn) Then(o ...clientv3.Op) clientv3.Txn { return reasonedTxn{t.Txn.Then(o...), t.why} }
func (t reasonedTxn) Else(o ...clientv3.Op) clientv3.Txn { return reasonedTxn{t.Txn.Else(o...), t.why} }

func (t reasonedTxn) Commit() (*clientv3.TxnResponse, error) {
	r, err := t.Txn.Commit()
	if !errors.Is(err, rpctypes.ErrNoSpace) {
		return r, err
	}
	reason := t.why()
	if reason == nil {
		reason = err
	}
	return nil, &apierrors.StatusError{ErrStatus: metav1.Status{
		Status:  metav1.StatusFailure,
		Code:    http.StatusInsufficientStorage,
		Reason:  "InsufficientStorage",
		Message: fmt.Sprintf("nothing was stored: %v", reason),
	}}
}
