package rpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/ca"
)

// Client calls the routes of managers. Connections are kept and shared; after the
// credentials were swapped, new calls use new connections.
type Client struct {
	dial   DialFunc
	source *ca.Source  // nil for a client that joins
	joins  *tls.Config // nil for a client with credentials
	ctx    context.Context
	cancel context.CancelFunc

	mu        sync.Mutex
	transport *http.Transport
	madeWith  *ca.Credentials

	// connsMu is apart from mu, since a transport closes connections whenever
	// it likes, also while it is being closed itself.
	connsMu sync.Mutex
	conns   map[*trackedConn]struct{}
}

// NewClient makes a client that shows the node's certificate and accepts only
// managers of its cluster. dial may be nil for the ordinary one.
func NewClient(source *ca.Source, dial DialFunc) *Client { return newClient(source, nil, dial) }

// NewJoinClient makes a client for a node that has only a token: it accepts only
// managers whose root the token pins, and reaches only open routes.
func NewJoinClient(token ca.Token, dial DialFunc) *Client {
	return newClient(nil, ca.JoinConfig(token, protocolHTTP), dial)
}

func newClient(source *ca.Source, joins *tls.Config, dial DialFunc) *Client {
	c := &Client{dial: dial.orDefault(), source: source, joins: joins, conns: map[*trackedConn]struct{}{}}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Close ends every connection, and with them the calls and streams on them.
func (c *Client) Close() {
	c.cancel()
	c.mu.Lock()
	transport := c.transport
	c.mu.Unlock()
	c.connsMu.Lock()
	conns := c.conns
	c.conns = nil
	c.connsMu.Unlock()
	for conn := range conns {
		conn.Conn.Close()
	}
	if transport != nil {
		transport.CloseIdleConnections()
	}
}

// Call sends in (nil for no body) as JSON to a route of the manager at addr
// (host:port) and decodes the answer into out (nil to ignore it). A refusal is
// the error that the route returned, kind and all; a manager that cannot be
// reached is api.Unavailable.
func (c *Client) Call(ctx context.Context, addr, method, path string, in, out any) error {
	what := method + " " + path + " at " + addr
	res, err := c.send(ctx, addr, method, path, in)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxBody+1))
	if err != nil {
		return unavailable(what, err)
	}
	if len(raw) > maxBody {
		return fmt.Errorf("%s: answer is larger than %d bytes", what, maxBody)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("%s: decode answer: %w", what, err)
	}
	return nil
}

// Stream calls a route that answers with a stream of JSON lines. It ends with
// ctx or with Close of the stream, one of which must happen.
func (c *Client) Stream(ctx context.Context, addr, path string, in any) (*Stream, error) {
	res, err := c.send(ctx, addr, http.MethodPost, path, in)
	if err != nil {
		return nil, err
	}
	return newStream("POST "+path+" at "+addr, res.Body), nil
}

// send returns an answer with status 200, whose body the caller closes.
func (c *Client) send(ctx context.Context, addr, method, path string, in any) (*http.Response, error) {
	what := method + " " + path + " at " + addr
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return nil, fmt.Errorf("%s: encode %T: %w", what, in, err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "https://"+addr+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.roundTripper().RoundTrip(req)
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return nil, &NotSentError{unavailable(what, err)}
	}
	if err != nil {
		return nil, unavailable(what, err)
	}
	if res.StatusCode != http.StatusOK {
		defer res.Body.Close()
		return nil, decodeError(what, res)
	}
	return res, nil
}

// roundTripper returns the transport of the current credentials. Connections
// made with older ones finish their calls and get no new ones.
func (c *Client) roundTripper() *http.Transport {
	var now *ca.Credentials
	if c.source != nil {
		now = c.source.Current()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.transport != nil && c.madeWith == now {
		return c.transport
	}
	if c.transport != nil {
		c.transport.CloseIdleConnections()
	}
	c.transport, c.madeWith = c.newTransport(), now
	return c.transport
}

func (c *Client) newTransport() *http.Transport {
	config := c.joins
	if config == nil {
		config = ca.ClientConfig(c.source, ca.Want{Role: swarm.NodeRoleManager}, protocolHTTP)
	}
	t := &http.Transport{
		DialContext:         c.dialTracked,
		TLSClientConfig:     config,
		TLSHandshakeTimeout: dialTimeout,
		ForceAttemptHTTP2:   true,
		Protocols:           new(http.Protocols),
		DisableCompression:  true,
		IdleConnTimeout:     0, // heartbeats keep the one connection busy
		HTTP2:               &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: 2 * pingTimeout},
	}
	t.Protocols.SetHTTP2(true)
	return t
}

// dialTracked dials within the time allowed and remembers the connection for Close.
func (c *Client) dialTracked(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	raw, err := c.dial(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	conn := &trackedConn{Conn: raw, owner: c}
	c.connsMu.Lock()
	defer c.connsMu.Unlock()
	if c.conns == nil {
		raw.Close()
		return nil, errors.New("client is closed")
	}
	c.conns[conn] = struct{}{}
	return conn, nil
}

// trackedConn takes itself out of the client's list when it is closed.
type trackedConn struct {
	net.Conn
	owner *Client
}

// Close closes the connection.
func (t *trackedConn) Close() error {
	t.owner.connsMu.Lock()
	delete(t.owner.conns, t)
	t.owner.connsMu.Unlock()
	return t.Conn.Close()
}
