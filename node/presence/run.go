package presence

import (
	"context"
	"sync"

	"shoal/node/fabric"
)

// Run keeps the network right until ctx ends. What runs beside it begins with the
// first step and ends with ctx.
func (p *Presence) Run(ctx context.Context, beside ...func(context.Context)) {
	p.publishSelf() // the agent knows the ingress network from the earlier run
	var helpers sync.WaitGroup
	defer helpers.Wait()
	helpers.Go(func() { p.restore(ctx) })
	p.awaitContact(ctx)
	p.awaitTasks(ctx)
	helpers.Go(func() { p.follow(ctx) })
	helpers.Go(func() {
		fabric.Memorize(ctx, p.cfg.Dir, p.table, func(err error) {
			p.cfg.Logger.Error("a restart would not know what this node knows of others", "error", err)
		})
	})
	for _, run := range beside {
		helpers.Go(func() { run(ctx) })
	}
	p.fabric.Run(ctx)
}

// restore shows the others this run's records. The old ones count with them until
// the new ones are all there; when no task has outlived the earlier run that is at
// once, and nobody is led to a task that died with it.
func (p *Presence) restore(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	p.assigned.Load().Restored(ctx)
	p.table.Open()
}

// follow wakes the fabric with every change of the table.
func (p *Presence) follow(ctx context.Context) {
	for {
		next := p.table.Changed()
		p.fabric.Trigger()
		select {
		case <-next:
		case <-ctx.Done():
			return
		}
	}
}

// awaitContact returns when the table can be taken for whole. A node without a
// past returns at once, for it has nothing to lose, and so does one that is alone.
// A bound ends the wait for nodes that do not speak.
func (p *Presence) awaitContact(ctx context.Context) {
	if _, _, nodes := p.Lists(); p.cfg.Epoch <= 1 || len(nodes) <= 1 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, firstContact)
	defer cancel()
	select {
	case <-p.gossip.Compared():
	case <-ctx.Done():
		return
	}
	for {
		changed := p.table.Changed()
		if p.whole() {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// awaitTasks returns when every task that outlived the earlier run counts again.
// Until then what leads to it stays as it is. A bound ends the wait for a runtime
// that does not answer.
func (p *Presence) awaitTasks(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, restoreTimeout)
	defer cancel()
	p.assigned.Load().Sighted(ctx)
}
