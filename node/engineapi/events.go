package engineapi

import (
	"context"
	"net/http"
	"slices"
	"sync"

	"github.com/moby/moby/api/types/events"

	"shoal/control/dockerapi/wire"
)

// broadcaster hands the node's own events to everyone who listens. A listener
// that does not keep up loses events rather than hold anyone up.
type broadcaster struct {
	mu        sync.Mutex
	listeners map[chan events.Message]struct{}
}

const eventBuffer = 256

func newBroadcaster() *broadcaster {
	return &broadcaster{listeners: map[chan events.Message]struct{}{}}
}

func (b *broadcaster) listen() (<-chan events.Message, func()) {
	ch := make(chan events.Message, eventBuffer)
	b.mu.Lock()
	b.listeners[ch] = struct{}{}
	b.mu.Unlock()
	return ch, func() {
		b.mu.Lock()
		delete(b.listeners, ch)
		b.mu.Unlock()
	}
}

func (b *broadcaster) send(m events.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for ch := range b.listeners {
		select {
		case ch <- m:
		default:
		}
	}
}

// emit tells listeners that something of this node changed.
func (a *API) emit(kind events.Type, action events.Action, id string, attributes map[string]string) {
	now := a.cfg.Now()
	a.events.send(events.Message{
		Type: kind, Action: action, Actor: events.Actor{ID: id, Attributes: attributes},
		Scope: "local", Time: now.Unix(), TimeNano: now.UnixNano(),
	})
}

// Emit is emit for the rest of the node: containers that start and end.
func (a *API) Emit(kind events.Type, action events.Action, id string, attributes map[string]string) {
	a.emit(kind, action, id, attributes)
}

// actorKinds are the filters that name whom an event is about, by id, the
// beginning of an id, or name.
var actorKinds = []string{"config", "container", "daemon", "image", "network", "node", "plugin", "secret", "service", "volume"}

// streamEvents sends the node's and the cluster's events from now on until the
// client leaves or the time of ?until=.
func (a *API) streamEvents(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	filters, err := wire.ParseFilters(r, append(slices.Clone(actorKinds), "type", "event", "scope", "label")...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	until, err := moment(r, "until")
	if err != nil {
		return err
	}
	if !until.IsZero() {
		ctx, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	stream, err := wire.NewJSONStream(w)
	if err != nil {
		return err
	}
	return a.forward(ctx, filters, stream)
}

func (a *API) forward(ctx context.Context, filters wire.Filters, stream *wire.JSONStream) error {
	local, stop := a.events.listen()
	defer stop()
	cluster := make(chan events.Message, eventBuffer)
	if a.cfg.ClusterEvents != nil {
		var wg sync.WaitGroup
		defer wg.Wait()
		ctx2, cancel := context.WithCancel(ctx)
		defer cancel()
		wg.Add(1)
		go func() {
			defer wg.Done()
			// Its end means that the client or the membership went away.
			_ = a.cfg.ClusterEvents(ctx2, func(m events.Message) error {
				select {
				case cluster <- m:
					return nil
				case <-ctx2.Done():
					return ctx2.Err()
				}
			})
		}()
	}
	for {
		var m events.Message
		select {
		case <-ctx.Done():
			return nil
		case m = <-local:
		case m = <-cluster:
		}
		if !matches(filters, m) {
			continue
		}
		if err := stream.Send(m); err != nil {
			return nil // the client has gone
		}
	}
}

func matches(f wire.Filters, m events.Message) bool {
	if !f.Exact("type", string(m.Type)) || !f.Exact("event", string(m.Action)) || !f.Exact("scope", m.Scope) {
		return false
	}
	if !f.Labels("label", m.Actor.Attributes) {
		return false
	}
	for _, kind := range actorKinds {
		if f.Has(kind) && (string(m.Type) != kind || !f.Prefix(kind, m.Actor.ID) && !f.Exact(kind, m.Actor.Attributes["name"])) {
			return false
		}
	}
	return true
}
