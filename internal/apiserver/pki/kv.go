package pki

import (
	"context"
	"errors"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// KV is the one place that servers sharing an etcd agree on their keys in. Whoever can read it can be any user of
// the cluster; the same is true of an etcd that holds its secrets and roles.
type KV interface {
	// Get returns the value, or nil if there is none.
	Get(ctx context.Context) ([]byte, error)
	// PutIfAbsent stores value if there is none, and returns the one that is there then.
	PutIfAbsent(ctx context.Context, value []byte) ([]byte, error)
}

// EtcdKey is where NewEtcdKV is meant to keep the keys, outside of the API server's own prefix.
const EtcdKey = "/everynode/pki"

// NewEtcdKV is a KV in one key of etcd.
func NewEtcdKV(c *clientv3.Client, key string) KV { return etcdKV{c, key} }

type etcdKV struct {
	c   *clientv3.Client
	key string
}

func (e etcdKV) Get(ctx context.Context) ([]byte, error) {
	r, err := e.c.Get(ctx, e.key)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", e.key, err)
	}
	if len(r.Kvs) == 0 {
		return nil, nil
	}
	return r.Kvs[0].Value, nil
}

func (e etcdKV) PutIfAbsent(ctx context.Context, value []byte) ([]byte, error) {
	r, err := e.c.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(e.key), "=", 0)).
		Then(clientv3.OpPut(e.key, string(value))).Else(clientv3.OpGet(e.key)).Commit()
	if err != nil {
		return nil, fmt.Errorf("put %s: %w", e.key, err)
	}
	if r.Succeeded {
		return value, nil
	}
	kvs := r.Responses[0].GetResponseRange().GetKvs()
	if len(kvs) == 0 {
		return nil, errors.New("put " + e.key + ": it came and went meanwhile")
	}
	return kvs[0].Value, nil
}
