package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

func openExternal(ctx context.Context, o Options) (*Backend, error) {
	c, err := dial(ctx, o)
	if err != nil {
		return nil, err
	}
	return &Backend{options: o, client: c, servers: o.Endpoints}, nil
}

func dial(ctx context.Context, o Options) (*clientv3.Client, error) {
	timeout := dialTimeout
	if end, ok := ctx.Deadline(); ok {
		timeout = min(timeout, time.Until(end))
	}
	cfg := clientv3.Config{
		Context:              context.WithoutCancel(ctx),
		Endpoints:            o.Endpoints,
		DialTimeout:          timeout,
		DialKeepAliveTime:    keepaliveTime,
		DialKeepAliveTimeout: keepaliveLimit,
		Logger:               zap.New(klogCore{zap.ErrorLevel}),
	}
	if o.CAFile != "" || o.CertFile != "" {
		t, err := transport.TLSInfo{CertFile: o.CertFile, KeyFile: o.KeyFile, TrustedCAFile: o.CAFile}.ClientConfig()
		if err != nil {
			return nil, fmt.Errorf("store: etcd TLS files: %w", err)
		}
		cfg.TLS = t
	}
	c, err := clientv3.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("store: etcd client: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if _, err := c.Get(ctx, healthKey); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("store: no answer from etcd at %s within %s (%w): check that it runs, the addresses and the TLS files",
			strings.Join(o.Endpoints, ", "), timeout.Round(time.Second), err)
	}
	return c, nil
}
