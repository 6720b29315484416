package agent

import (
	"context"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/overlay/endpoint"
)

// How long a task that stops is looked at for clients it has not heard.
const (
	hearPause    = 10 * time.Millisecond
	hearPatience = time.Second
)

// drain takes the task out of names and balancers everywhere. Where clients were
// told its own address, they may come until that answer has run out.
func (w *worker) drain(ctx context.Context, t *api.Task) {
	w.publish(t, endpoint.Draining)
	w.settled()
	if missing := w.confirmed(ctx); len(missing) > 0 {
		w.a.cfg.Logger.Warn("a task stops although not every node confirmed that it sends nothing new",
			"task", w.id, "silent", missing)
	}
	if w.status().State != swarm.TaskStateRunning || w.local.Unhealthy {
		return
	}
	if w.a.addressed(t) {
		pause(ctx, w.a.cfg.NameTTL)
	}
	if !t.OnHost() { // there the sockets of all the node's programs are, and nobody is sent by us
		w.hearOut(ctx)
	}
}

// hearOut lets the task take the requests of those that connected before they could
// know better: most programs that are told to stop end what they are at, and hang up
// on whoever they have not heard yet. It takes two looks in a row without such a
// client, hearPause apart, and hearPatience at most: some connect and say nothing.
func (w *worker) hearOut(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, hearPatience)
	defer cancel()
	for quiet := 0; quiet < 2 && ctx.Err() == nil; {
		switch waiting, err := w.a.cfg.Network.Unheard(w.id); {
		case err != nil:
			w.a.cfg.Logger.Debug("who waits to be heard by a task that stops is not known", "task", w.id, "error", err)
			return
		case waiting > 0:
			quiet = 0
		default:
			quiet++
		}
		if quiet < 2 {
			pause(ctx, hearPause)
		}
	}
}
