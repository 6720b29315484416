package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"github.com/moby/moby/api/types/swarm"
	"golang.org/x/sync/errgroup"
)

// controlPort is where managers listen.
const controlPort = "2377"

// Client speaks HTTP to the host's API; every URL's host part is ignored.
func (h Host) Client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", h.Socket)
		},
	}}
}

// Call sends body, when not nil, as JSON or, when it is a reader, as it is, and
// decodes the answer into answer, when not nil. A status of 400 or more is an
// error with the daemon's message.
func (h Host) Call(ctx context.Context, method, path string, body, answer any) error {
	content, kind, err := encode(body)
	if err != nil {
		return fmt.Errorf("%s %s on %s: %w", method, path, h.Name, err)
	}
	request, err := http.NewRequestWithContext(ctx, method, "http://"+h.Name+path, content)
	if err != nil {
		return fmt.Errorf("%s %s on %s: %w", method, path, h.Name, err)
	}
	request.Header.Set("Content-Type", kind)
	response, err := h.Client().Do(request)
	if err != nil {
		return fmt.Errorf("%s %s on %s: %w", method, path, h.Name, err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(response.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("%s %s on %s: read the answer: %w", method, path, h.Name, err)
	}
	if response.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("%s %s on %s: %d: %s", method, path, h.Name, response.StatusCode, message(raw))
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(raw, answer); err != nil {
		return fmt.Errorf("%s %s on %s: decode the answer: %w", method, path, h.Name, err)
	}
	return nil
}

func encode(body any) (io.Reader, string, error) {
	switch b := body.(type) {
	case nil:
		return http.NoBody, "application/json", nil
	case io.Reader:
		return b, "application/x-tar", nil
	}
	raw, err := json.Marshal(body)
	return bytes.NewReader(raw), "application/json", err
}

func message(raw []byte) string {
	var body struct{ Message string }
	if json.Unmarshal(raw, &body) == nil && body.Message != "" {
		return body.Message
	}
	return string(bytes.TrimSpace(raw))
}

// form makes the hosts one cluster: h1 begins, the other managers join one after
// the other, then the workers at once.
func (l *Lab) form(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Patience)
	defer cancel()
	hosts := l.Hosts()
	first := hosts[0]
	init := swarm.InitRequest{ListenAddr: "0.0.0.0:" + controlPort, AdvertiseAddr: first.Reached.String()}
	init.Spec.Dispatcher.HeartbeatPeriod = l.cfg.Heartbeat
	if err := first.Call(ctx, http.MethodPost, "/swarm/init", init, nil); err != nil {
		return err
	}
	var cluster swarm.Swarm
	if err := first.Call(ctx, http.MethodGet, "/swarm", nil, &cluster); err != nil {
		return err
	}
	workers, wctx := errgroup.WithContext(ctx)
	for _, h := range hosts[1:] {
		if h.Manager() {
			if err := h.join(ctx, first, cluster.JoinTokens.Manager); err != nil {
				return err
			}
			continue
		}
		workers.Go(func() error { return h.join(wctx, first, cluster.JoinTokens.Worker) })
	}
	if err := workers.Wait(); err != nil {
		return err
	}
	return l.Ready(ctx)
}

func (h Host) join(ctx context.Context, to Host, token string) error {
	return h.Call(ctx, http.MethodPost, "/swarm/join", swarm.JoinRequest{
		ListenAddr: "0.0.0.0:" + controlPort, AdvertiseAddr: h.Reached.String(),
		RemoteAddrs: []string{net.JoinHostPort(to.Reached.String(), controlPort)}, JoinToken: token,
	}, nil)
}

// Ready waits until every host says that it takes part, and some manager sees
// every host as a ready node and every manager as reachable.
func (l *Lab) Ready(ctx context.Context) error {
	return until(ctx, l.cfg.Patience, "all nodes to be ready", func() error {
		for _, h := range l.Hosts() {
			if err := h.active(ctx); err != nil {
				return err
			}
		}
		var errs []error
		for _, h := range l.Hosts() {
			if !h.Manager() {
				break
			}
			err := l.readyAt(ctx, h)
			if err == nil {
				return nil
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}

// active asks a host whether it takes part in a cluster.
func (h Host) active(ctx context.Context) error {
	var info struct{ Swarm swarm.Info }
	if err := h.Call(ctx, http.MethodGet, "/info", nil, &info); err != nil {
		return err
	}
	if info.Swarm.LocalNodeState != swarm.LocalNodeStateActive {
		return fmt.Errorf("%s is %s: %s", h.Name, info.Swarm.LocalNodeState, info.Swarm.Error)
	}
	return nil
}

func (l *Lab) readyAt(ctx context.Context, manager Host) error {
	var nodes []swarm.Node
	if err := manager.Call(ctx, http.MethodGet, "/nodes", nil, &nodes); err != nil {
		return err
	}
	ready := map[string]bool{}
	for _, n := range nodes {
		if n.ManagerStatus != nil && n.ManagerStatus.Reachability != swarm.ReachabilityReachable && n.Status.State != swarm.NodeStateDown {
			return fmt.Errorf("%s finds the manager %s %s", manager.Name, n.Description.Hostname, n.ManagerStatus.Reachability)
		}
		ready[n.Description.Hostname] = ready[n.Description.Hostname] || n.Status.State == swarm.NodeStateReady
	}
	for _, h := range l.Hosts() {
		if !ready[h.Name] {
			return fmt.Errorf("%s sees no ready node %s", manager.Name, h.Name)
		}
	}
	return nil
}

// loadImages loads every archive on every host.
func (l *Lab) loadImages(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Patience)
	defer cancel()
	all, ctx := errgroup.WithContext(ctx)
	for _, h := range l.Hosts() {
		all.Go(func() error {
			for _, path := range l.cfg.Images {
				if err := h.LoadImage(ctx, path); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return all.Wait()
}

// LoadImage loads an archive on a host.
func (h Host) LoadImage(ctx context.Context, path string) error {
	archive, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open an image for %s: %w", h.Name, err)
	}
	defer archive.Close()
	return h.Call(ctx, http.MethodPost, "/images/load?quiet=1", io.Reader(archive), nil)
}
