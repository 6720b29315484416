package dispatch

import (
	"context"
	"net/http"
	"time"

	"shoal/control/api"
)

// askPause lies between two tries to find the leader for one question.
const askPause = 50 * time.Millisecond

// Attach asks the leader for Dispatcher.Attach, until it is found or ctx ends.
func (c *Client) Attach(ctx context.Context, r api.AttachRequest) (reply api.AttachReply, err error) {
	err = c.ask(ctx, attachPath, r, &reply)
	return reply, err
}

// Detach asks the leader for Dispatcher.Detach, until it is found or ctx ends.
func (c *Client) Detach(ctx context.Context, taskID string) error {
	return c.ask(ctx, detachPath, api.DetachRequest{TaskID: taskID}, nil)
}

// ask goes round the managers until one that leads has answered. What it asks may
// be asked twice.
func (c *Client) ask(ctx context.Context, path string, in, out any) error {
	search := &search{managers: c.Managers}
	for {
		addr := search.next(time.Now())
		if addr == "" {
			return api.Errorf(api.Unavailable, "this node knows no manager of its swarm")
		}
		err := c.RPC.Call(ctx, addr, http.MethodPost, path, in, out)
		if _, refused := err.(*api.Error); err == nil || refused { //nolint:errorlint // what lies between the nodes wraps one
			return err
		}
		if search.redirected(addr, err, time.Now()) {
			continue
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(askPause):
		}
	}
}
