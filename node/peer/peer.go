// Package peer is how nodes of a cluster ask each other about their networks:
// HTTP/1.1 on the connections that the gossip port hands on, mutually
// authenticated with the cluster's certificates. Every node has that port,
// workers too, and whoever holds a certificate of one that was not removed may ask,
// such as a scraper of metrics.
//
// It knows nothing of what is asked, opens no port, and decides nothing but who
// may ask.
package peer

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"shoal/control/api"
	"shoal/control/dockerapi/wire"
)

// Protocol is the ALPN name at the gossip port.
const Protocol = "http/1.1"

const (
	// connectionsMax bounds the connections served at once.
	connectionsMax = 64
	// headerTimeout and idleTimeout end connections of clients that say nothing.
	headerTimeout = 5 * time.Second
	idleTimeout   = time.Minute
	// answerMax bounds an answer in bytes.
	answerMax = 64 << 20
)

// Server answers other nodes.
type Server struct {
	http  *http.Server
	queue *queue
	slots chan struct{}
	done  sync.WaitGroup
}

// NewServer serves h to every node that admit, asked with the node's id, returns
// nil for.
func NewServer(h http.Handler, admit func(nodeID string) error, logger *slog.Logger) *Server {
	s := &Server{queue: newQueue(), slots: make(chan struct{}, connectionsMax)}
	s.http = &http.Server{
		Handler: guard(h, admit), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed || state == http.StateHijacked {
				<-s.slots
			}
		},
	}
	s.done.Go(func() {
		if err := s.http.Serve(s.queue); err != nil && !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			logger.Error("other nodes cannot ask this one any more", "error", err)
		}
	})
	return s
}

func guard(h http.Handler, admit func(string) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		err := api.Errorf(api.Forbidden, "%s needs a certificate of the cluster", r.URL.Path)
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			err = admit(r.TLS.PeerCertificates[0].Subject.CommonName)
		}
		if err != nil {
			w.Header().Set("Connection", "close") // it would take up a place
			wire.WriteError(w, err)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// Take serves a connection whose handshake is done. Too many at once are closed.
func (s *Server) Take(conn *tls.Conn) {
	select {
	case s.slots <- struct{}{}:
		if s.queue.put(conn) {
			return
		}
		<-s.slots
	default:
	}
	// The other side sees it and asks again later.
	_ = conn.Close()
}

// Close ends the server and the requests under way.
func (s *Server) Close() error {
	err := s.http.Close()
	s.done.Wait()
	s.queue.drop()
	return err
}

// Client asks other nodes.
type Client struct{ transport *http.Transport }

// NewClient asks over connections that dial opens to a node.
func NewClient(dial func(ctx context.Context, nodeID, protocol string) (net.Conn, error)) *Client {
	return &Client{transport: &http.Transport{
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			node, _, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return dial(ctx, node, Protocol)
		},
		IdleConnTimeout: idleTimeout / 2, MaxIdleConnsPerHost: 2, DisableCompression: true,
	}}
}

// Open asks a node and returns the body of its answer, which the caller closes.
// A refusal is the error that the node answered with; a node that cannot be
// asked is api.Unavailable.
func (c *Client) Open(ctx context.Context, nodeID, path string, query url.Values) (io.ReadCloser, error) {
	target := url.URL{Scheme: "https", Host: nodeID, Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("ask node %s: %w", nodeID, err)
	}
	res, err := c.transport.RoundTrip(req)
	if err != nil {
		return nil, api.Errorf(api.Unavailable, "node %s cannot be asked: %w", nodeID, err)
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	defer res.Body.Close()
	return nil, refusal(nodeID, res)
}

// refusal is the error that a node answered with.
func refusal(nodeID string, res *http.Response) error {
	body, err := io.ReadAll(io.LimitReader(res.Body, 1<<16))
	if err != nil {
		return api.Errorf(api.Unavailable, "node %s answered half: %w", nodeID, err)
	}
	kind := api.Internal
	switch res.StatusCode {
	case http.StatusNotFound:
		kind = api.NotFound
	case http.StatusBadRequest:
		kind = api.Invalid
	case http.StatusForbidden:
		kind = api.Forbidden
	case http.StatusServiceUnavailable:
		kind = api.Unavailable
	}
	var said struct{ Message string }
	if json.Unmarshal(body, &said) != nil || said.Message == "" {
		said.Message = res.Status
	}
	return api.Errorf(kind, "node %s: %s", nodeID, said.Message)
}

// Get asks a node and decodes its answer, JSON, into out.
func (c *Client) Get(ctx context.Context, nodeID, path string, query url.Values, out any) error {
	body, err := c.Open(ctx, nodeID, path, query)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(io.LimitReader(body, answerMax)).Decode(out); err != nil {
		return api.Errorf(api.Unavailable, "node %s: answer to %s: %w", nodeID, path, err)
	}
	return nil
}

// Close ends the idle connections.
func (c *Client) Close() { c.transport.CloseIdleConnections() }
