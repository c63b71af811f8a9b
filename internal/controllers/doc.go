// Package controllers starts everything that only the leading server runs: our own controllers
// (daemonset, nodehealth, join, routes) and upstream's (housekeeping), on one set of shared informers.
//
// [ShareInformers] makes that set, once per term of leadership, as a view of the API server's own
// caches; the scheduler shares it. [Run] runs the controllers until its context ends or one of them
// fails; a failure ends all, so that election starts them anew from consistent lists instead of
// leaving a cluster half managed.
//
// Called by internal/cli under internal/controllers/election:
//
//	election.Run(ctx, client, identity, func(term context.Context) error {
//		cfg := election.Fence(term, server.ClientConfig())
//		informers, err := controllers.ShareInformers(term, ctx, server.Informers(), cfg)
//		if err != nil {
//			return err
//		}
//		g, term := errgroup.WithContext(term)
//		g.Go(func() error { return controllers.Run(term, controllers.Options{Config: cfg, Informers: informers, …}) })
//		g.Go(func() error { return scheduler.Run(term, scheduler.Options{Config: cfg, Informers: informers}) })
//		return g.Wait()
//	})
//
// It decides nothing about objects; that is done in internal/decide and in upstream's packages.
package controllers
