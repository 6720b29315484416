package netview

import (
	"context"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"shoal/control/api"
	"shoal/dataplane/trace"
)

// Peers asks other nodes for their views; node/peer has the one implementation.
type Peers interface {
	// Get decodes a node's answer into out.
	Get(ctx context.Context, nodeID, path string, query url.Values, out any) error
	// Open returns a node's answer as it comes; the caller closes it.
	Open(ctx context.Context, nodeID, path string, query url.Values) (io.ReadCloser, error)
}

const (
	// relayed marks a question that another node passed on: it is answered here.
	relayed = "relayed"
	// peerPatience bounds how long one view waits for one other node.
	peerPatience = 3 * time.Second
	// peersAtOnce bounds how many nodes one view asks.
	peersAtOnce = 32
)

// nodeID finds a node by id or host name.
func (s *Sources) nodeID(name string) (string, error) {
	if s.Nodes[name] != nil {
		return name, nil
	}
	var found []string
	for id := range s.Nodes {
		if s.Nodes[id].Description.Hostname == name {
			found = append(found, id)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", api.Errorf(api.NotFound, "no node %q in this cluster", name)
	}
	return "", api.Errorf(api.Invalid, "%d nodes are called %q: give one's id", len(found), name)
}

// elsewhere says which other node a question is for, "" for this one.
func (s *Sources) elsewhere(q url.Values) (string, error) {
	name := q.Get("node")
	if name == "" || q.Has(relayed) {
		return "", nil
	}
	id, err := s.nodeID(name)
	if err != nil || id == s.NodeID {
		return "", err
	}
	return id, nil
}

// pass marks a question as passed on.
func pass(q url.Values) url.Values {
	out := url.Values{relayed: {"1"}}
	for k, v := range q {
		if k != "node" {
			out[k] = v
		}
	}
	return out
}

// relay answers with what another node answers.
func (s *Sources) relay(w http.ResponseWriter, r *http.Request, node string) error {
	if s.Peers == nil {
		return api.Errorf(api.Unavailable, "this node cannot ask node %s", s.node(node))
	}
	ctx, cancel := context.WithTimeout(r.Context(), 2*peerPatience)
	defer cancel()
	body, err := s.Peers.Open(ctx, node, r.URL.Path, pass(r.URL.Query()))
	if err != nil {
		return err
	}
	defer body.Close()
	w.Header().Set("Content-Type", "application/json")
	_, err = io.Copy(w, body)
	return err
}

// Part is what a node knows of itself: its namespaces and networks as its wish
// and its kernel have them.
type Part struct {
	Namespaces []trace.Namespace
	Networks   []trace.Network
}

// part is this node's.
func (s *Sources) part() (Part, error) {
	o, err := s.observe()
	if err != nil {
		return Part{}, err
	}
	b := s.builder(o)
	b.self()
	return Part{b.w.Namespaces, b.w.Networks}, nil
}

// ask asks nodes at the same time, each within peerPatience; answers and errors
// are by node.
func ask[T any](ctx context.Context, p Peers, nodes []string, path string, query url.Values) (map[string]T, map[string]error) {
	answers, errs := map[string]T{}, map[string]error{}
	var mu sync.Mutex
	var done sync.WaitGroup
	for _, id := range nodes[:min(len(nodes), peersAtOnce)] {
		done.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, peerPatience)
			defer cancel()
			var out T
			err := p.Get(ctx, id, path, pass(query), &out)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs[id] = err
				return
			}
			answers[id] = out
		})
	}
	done.Wait()
	for _, id := range nodes[min(len(nodes), peersAtOnce):] {
		errs[id] = api.Errorf(api.Unavailable, "node %s was not asked: no more than %d nodes are", s12(id), peersAtOnce)
	}
	return answers, errs
}

// s12 shortens an id for people.
func s12(id string) string { return id[:min(len(id), 12)] }

// others are the other nodes of the cluster that gossip does not miss, by id.
func (s *Sources) others() []string {
	view := s.View()
	var out []string
	for id := range s.Nodes {
		if id != s.NodeID && !view.Down(id) {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}
