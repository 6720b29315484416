package netview

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"shoal/control/api"
	"shoal/control/dockerapi/wire"
	"shoal/dataplane/lb"
	"shoal/dataplane/probe"
	"shoal/dataplane/trace"
)

// Live is one real packet, and whether it went as planned.
type Live struct {
	// Outcome is what the sender learnt: "connected", "answered", "refused",
	// "no route" or "no answer".
	Outcome string
	// Way is the planned way that it took, counted from 1; 0 for none of them.
	Way int
	// Differs says where it did otherwise than planned, "" where it did not.
	Differs string `json:",omitempty"`
	Seen    []Sighting
	// Notes say what could not be seen.
	Notes []string `json:",omitempty"`
}

// Sighting is the packet on one link.
type Sighting struct {
	Node string
	// Where is the namespace as in trace.Hop, or the network whose bridge it is.
	Where, Link string
	// Out says that it left by the link; else it came in.
	Out      bool
	Src, Dst netip.AddrPort
	// VNI and VTEP are set where it was inside VXLAN.
	VNI  uint32     `json:",omitempty"`
	VTEP netip.Addr `json:",omitzero"`
	// At is by the clock of the node.
	At time.Time
}

const (
	// followPatience bounds how long an answer to the packet is waited for, and
	// watchMax how long a node watches for another one.
	followPatience = 3 * time.Second
	watchMax       = 10 * time.Second
	// lastSeen is how long after the answer somebody may still tell of the packet.
	lastSeen = 150 * time.Millisecond
	// watchedMax bounds the namespaces that are watched, sightingsMax what is told
	// of them, watchesMax the watches of a node at one time.
	watchedMax, sightingsMax, watchesMax = 256, 256, 4
)

// watches are the places of watches under way.
var watches = make(chan struct{}, watchesMax)

// followable says why no packet can be sent, nil where one can.
func followable(o origin, q url.Values) error {
	if o.outside {
		return api.Errorf(api.Invalid, "a packet can be sent from a task or a node, not from outside: name another node of the cluster as FROM")
	}
	if q.Get("protocol") == string(lb.SCTP) {
		return api.Errorf(api.Invalid, "no packet of sctp can be sent: choose tcp, udp or ping")
	}
	return nil
}

// follow sends one packet and compares what it does with the plan.
func (s *Sources) follow(ctx context.Context, p trace.Packet, paths []trace.Path) (*Live, error) {
	mark := rand.Uint32()
	ctx, cancel := context.WithTimeout(ctx, watchMax)
	defer cancel()
	out := &Live{}
	f := &followers{seen: map[string][]Sighting{}}
	for _, node := range s.nodesOn(paths) {
		if err := f.start(ctx, s, node, p.Protocol, mark); err != nil {
			if node == s.NodeID {
				return nil, err
			}
			out.Notes = append(out.Notes, fmt.Sprintf("%s does not watch: %v", s.node(node), err))
			f.blind = append(f.blind, s.node(node))
		}
	}
	sendCtx, sent := context.WithTimeout(ctx, followPatience)
	outcome, err := probe.Send(sendCtx, p.Namespace, p.Protocol, p.Dst, mark)
	sent()
	if err != nil {
		cancel()
		f.done.Wait()
		return nil, err
	}
	select {
	case <-time.After(lastSeen):
	case <-ctx.Done():
	}
	cancel()
	f.done.Wait()
	out.Outcome, out.Seen = string(outcome), f.inOrder()
	out.compare(paths, f.blind)
	return out, nil
}

// nodesOn are the nodes on the ways, by id, this one first.
func (s *Sources) nodesOn(paths []trace.Path) []string {
	out := []string{s.NodeID}
	for _, p := range paths {
		for _, h := range append(slices.Clip(p.Hops), trace.Hop{Where: p.At}) {
			name, _, _ := strings.Cut(h.Where, "/")
			if id, err := s.nodeID(name); err == nil && !slices.Contains(out, id) {
				out = append(out, id)
			}
		}
	}
	return out[:min(len(out), peersAtOnce)]
}

// followers watch on the nodes of a plan.
type followers struct {
	mu    sync.Mutex
	order []string // nodes, by name
	seen  map[string][]Sighting
	blind []string // nodes that do not watch
	done  sync.WaitGroup
}

func (f *followers) note(at Sighting) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.seen[at.Node]) < sightingsMax {
		f.seen[at.Node] = append(f.seen[at.Node], at)
	}
}

// start begins to watch on a node and returns when it does.
func (f *followers) start(ctx context.Context, s *Sources, node string, p lb.Protocol, mark uint32) error {
	f.order = append(f.order, s.node(node))
	if node == s.NodeID {
		wait, err := s.watch(ctx, p, mark, f.note)
		if err == nil {
			f.done.Go(wait)
		}
		return err
	}
	if s.Peers == nil {
		return api.Errorf(api.Unavailable, "this node cannot ask it")
	}
	q := url.Values{"protocol": {string(p)}, "mark": {strconv.FormatUint(uint64(mark), 10)}, relayed: {"1"}}
	startCtx, started := context.WithCancel(ctx)
	timer := time.AfterFunc(peerPatience, started)
	body, err := s.Peers.Open(startCtx, node, "/shoal/watch", q)
	if err != nil {
		timer.Stop()
		started()
		return err
	}
	lines := json.NewDecoder(body)
	var ready Sighting // the first line says that the node watches
	err = lines.Decode(&ready)
	if !timer.Stop() && err == nil {
		err = context.DeadlineExceeded
	}
	if err != nil {
		started()
		body.Close()
		return err
	}
	f.done.Go(func() {
		defer started()
		defer body.Close()
		for {
			var at Sighting
			if lines.Decode(&at) != nil {
				return // the watch is over
			}
			at.Node = s.node(node)
			f.note(at)
		}
	})
	return nil
}

// inOrder lists what was seen: node by node as the plan has them, each by its own
// clock, every link and direction once.
func (f *followers) inOrder() []Sighting {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []Sighting{}
	for _, node := range f.order {
		list := f.seen[node]
		slices.SortStableFunc(list, func(a, b Sighting) int { return a.At.Compare(b.At) })
		for _, at := range list {
			if !slices.ContainsFunc(out, func(o Sighting) bool { o.At = at.At; return o == at }) {
				out = append(out, at)
			}
		}
	}
	return out
}

// watch tells of packets with the mark in this node's namespaces until ctx ends.
func (s *Sources) watch(ctx context.Context, p lb.Protocol, mark uint32, seen func(Sighting)) (wait func(), err error) {
	select {
	case watches <- struct{}{}:
	default:
		return nil, api.Errorf(api.Unavailable, "%d packets are being followed already", watchesMax)
	}
	wish := s.Fabric.Wish()
	names, node := map[string]string{"": s.node(s.NodeID)}, s.node(s.NodeID)
	vxlan := uint16(0)
	for _, n := range wish.Overlay.Networks {
		vxlan, names[n.Namespace] = n.Port, node+"/network "+s.network(n.ID)
		if n.Balancer != nil {
			names[n.Namespace] = node + "/routing mesh"
		}
	}
	for _, l := range s.Fabric.Locals() {
		names[l.Namespace] = node + "/" + (&worldBuilder{s: s}).taskName(l.Task.ID)
	}
	paths := mapKeys(names)
	closed, err := probe.Watch(ctx, paths[:min(len(paths), watchedMax)], p, mark, vxlan, func(at probe.Sighting) {
		seen(Sighting{Node: node, Where: names[at.Namespace], Link: at.Link, Out: at.Out, Src: at.Src, Dst: at.Dst, VNI: at.VNI, VTEP: at.VTEP, At: at.At})
	})
	if err != nil {
		<-watches
		return nil, err
	}
	return func() { closed(); <-watches }, nil
}

// Watch answers another node that follows a packet: an empty line once this node
// watches, then one line for each sighting, until the other one hangs up.
func (s *Sources) Watch(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	mark, err := strconv.ParseUint(q.Get("mark"), 10, 32)
	if err != nil {
		return api.Errorf(api.Invalid, "mark %q is no number of 32 bits", q.Get("mark"))
	}
	p := lb.Protocol(q.Get("protocol"))
	if p != lb.TCP && p != lb.UDP && p != probe.Ping {
		return api.Errorf(api.Invalid, "no packet of %q can be followed", p)
	}
	ctx, cancel := context.WithTimeout(r.Context(), watchMax)
	defer cancel()
	lines := make(chan Sighting, sightingsMax)
	wait, err := s.watch(ctx, p, uint32(mark), func(at Sighting) {
		select {
		case lines <- at:
		default: // the other side has enough of them
		}
	})
	if err != nil {
		return err
	}
	defer wait()
	defer cancel()
	w.Header().Set("Content-Type", "application/json")
	if err := tell(w, Sighting{}); err != nil {
		return err
	}
	for {
		select {
		case at := <-lines:
			if err := tell(w, at); err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func tell(w io.Writer, at Sighting) error {
	if err := json.NewEncoder(w).Encode(at); err != nil {
		return err
	}
	if rw, ok := w.(http.ResponseWriter); ok {
		return http.NewResponseController(rw).Flush()
	}
	return nil
}

// mountWatch adds the route that other nodes ask.
func mountWatch(rt *wire.Router, sources func() *Sources) {
	rt.Handle(http.MethodGet, "/shoal/watch", func(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
		s := sources()
		if s == nil {
			return api.Errorf(api.Unavailable, "this node is in no cluster, so it has no network to show")
		}
		return s.Watch(w, r)
	})
}
