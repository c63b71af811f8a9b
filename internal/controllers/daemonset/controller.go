package daemonset

import "context"

// Controller runs every DaemonSet of a cluster.
type Controller struct {
	o Options
}

// New makes a controller over the options' informers. It does nothing until Run.
func New(o Options) (*Controller, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &Controller{o: o.withDefaults()}, nil
}

// Run works until ctx ends and returns nil then.
func (c *Controller) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}
