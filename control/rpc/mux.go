package rpc

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/ca"
)

// Handler serves a route. An error it returns before it has written anything is
// sent to the client with its kind.
type Handler func(w http.ResponseWriter, r *http.Request) error

// Mux is the table of routes. All must be registered before the server serves.
type Mux struct {
	routes *http.ServeMux
	admit  func(ca.Identity) error
}

// NewMux makes an empty table. When admit is not nil, it is asked about every
// peer that showed a certificate: it refuses those whose certificate is still
// valid but who are no longer what it says. The role it is asked about is the
// one that the route needs: a manager that was demoted may still do what any
// worker may, such as asking for its new certificate.
func NewMux(admit func(ca.Identity) error) *Mux {
	m := &Mux{routes: http.NewServeMux(), admit: admit}
	m.Open("/", func(_ http.ResponseWriter, r *http.Request) error {
		return api.Errorf(api.NotFound, "no route %s %s on the control port", r.Method, r.URL.Path)
	})
	return m
}

// Handle registers a route (a pattern of http.ServeMux) for nodes with one of the roles.
func (m *Mux) Handle(pattern string, h Handler, roles ...swarm.NodeRole) {
	m.routes.Handle(pattern, Require(m.admit, h, roles...))
}

// Open registers a route that needs no certificate.
func (m *Mux) Open(pattern string, h Handler) {
	m.routes.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxOpenBody)
		serve(h, w, r)
	})
}

// ServeHTTP routes.
func (m *Mux) ServeHTTP(w http.ResponseWriter, r *http.Request) { m.routes.ServeHTTP(w, r) }

// Require lets a request pass to h if the peer has one of the roles and admit,
// unless nil, has nothing against it; PeerFrom then tells h who it is. Others
// get an api.Forbidden error that says which role is needed.
func Require(admit func(ca.Identity) error, h Handler, roles ...swarm.NodeRole) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peer, err := authorize(r, admit, roles)
		if err != nil {
			writeError(w, err)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		serve(h, w, r.WithContext(context.WithValue(r.Context(), peerKey{}, peer)))
	})
}

func authorize(r *http.Request, admit func(ca.Identity) error, roles []swarm.NodeRole) (ca.Identity, error) {
	peer, ok := ca.PeerOf(r.TLS)
	if !ok {
		return peer, api.Errorf(api.Forbidden, "%s needs the certificate of a %s", r.URL.Path, roleWords(roles))
	}
	if !slices.Contains(roles, peer.Role) {
		return peer, api.Errorf(api.Forbidden, "%s needs a %s, node %s is a %s", r.URL.Path, roleWords(roles), peer.NodeID, peer.Role)
	}
	if admit == nil {
		return peer, nil
	}
	used := peer
	if slices.Contains(roles, swarm.NodeRoleWorker) {
		used.Role = swarm.NodeRoleWorker
	}
	return peer, admit(used)
}

func roleWords(roles []swarm.NodeRole) string {
	words := make([]string, len(roles))
	for i, role := range roles {
		words[i] = string(role)
	}
	return strings.Join(words, " or ")
}

type peerKey struct{}

// PeerFrom returns who called a route that Mux.Handle or Require guards; false on
// an open route.
func PeerFrom(ctx context.Context) (ca.Identity, bool) {
	id, ok := ctx.Value(peerKey{}).(ca.Identity)
	return id, ok
}

func serve(h Handler, w http.ResponseWriter, r *http.Request) {
	tracked := &startedWriter{ResponseWriter: w}
	if err := h(tracked, r); err != nil {
		if tracked.started {
			// The answer has begun and cannot become an error any more: the
			// client learns of it by the stream's end without its last part.
			panic(http.ErrAbortHandler)
		}
		writeError(w, err)
	}
}

// startedWriter knows whether the answer has begun.
type startedWriter struct {
	http.ResponseWriter
	started bool
}

func (w *startedWriter) WriteHeader(status int) {
	w.started = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *startedWriter) Write(b []byte) (int, error) {
	w.started = true
	return w.ResponseWriter.Write(b)
}

// Unwrap is for http.ResponseController.
func (w *startedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func writeError(w http.ResponseWriter, err error) {
	status, body := encodeError(err)
	writeBody(w, status, body)
}

func writeBody(w http.ResponseWriter, status int, body any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode %T: %w", body, err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, err = w.Write(raw)
	return err
}

// ReadJSON decodes the body of a request; what is not the JSON of in, and what
// is too large, is api.Invalid.
func ReadJSON(r *http.Request, in any) error {
	raw, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(raw, in)
	}
	if err != nil {
		return api.Errorf(api.Invalid, "body of %s: %w", r.URL.Path, err)
	}
	return nil
}

// WriteJSON answers with status 200 and out.
func WriteJSON(w http.ResponseWriter, out any) error { return writeBody(w, http.StatusOK, out) }
