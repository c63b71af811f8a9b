// Package controllers starts everything that only the leading server runs: our own controllers
// (daemonset, join, routes) and upstream's (housekeeping), on one set of shared informers.
//
// [NewInformers] makes that set, once per term of leadership; the scheduler shares it. [Run] runs
// the controllers until its context ends or one of them fails; a failure ends all, so that
// election starts them anew from consistent lists instead of leaving a cluster half managed.
//
// Called by internal/cli under internal/controllers/election:
//
//	election.Run(ctx, client, identity, func(ctx context.Context) error {
//		cfg := election.Fence(ctx, server.ClientConfig())
//		informers, err := controllers.NewInformers(ctx, cfg)
//		if err != nil {
//			return err
//		}
//		defer informers.Shutdown() // after Wait: no cache outlives its term
//		g, ctx := errgroup.WithContext(ctx)
//		g.Go(func() error { return controllers.Run(ctx, controllers.Options{Config: cfg, Informers: informers, …}) })
//		g.Go(func() error { return scheduler.Run(ctx, scheduler.Options{Config: cfg, Informers: informers}) })
//		return g.Wait()
//	})
//
// It decides nothing about objects; that is done in internal/decide and in upstream's packages.
package controllers
