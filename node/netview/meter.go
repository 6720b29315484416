package netview

import (
	"cmp"
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"shoal/dataplane/netfilter"
)

const (
	// meterFresh is how old a reading may be that is shown again.
	meterFresh = 500 * time.Millisecond
	// meterIdle is after how long without a look the flows are forgotten: from
	// then on nothing is kept, and the next look begins anew.
	meterIdle = 2 * time.Minute
	// flowsMax bounds the flows that are remembered between two looks.
	flowsMax = 400_000
)

// Meter counts what goes over the balanced flows of a node. It reads the kernel
// only when somebody looks: the table of each namespace once, whatever the number
// of services. What flows did that began and were forgotten between two looks
// more than about two minutes apart is not counted.
type Meter struct {
	// Flows reads a namespace's table; nil for the kernel's.
	Flows func(namespace string) ([]netfilter.Tracked, error)

	mu     sync.Mutex
	since  time.Time // when the totals began
	at     time.Time // when the last look was
	last   map[flowKey]netfilter.Tracked
	totals map[usageKey]Traffic
	shown  Top
	forget *time.Timer
}

// flowKey tells the flows of a node apart.
type flowKey struct {
	namespace    string
	protocol     byte
	source, dest netip.AddrPort
	zone         uint16
}

// usageKey is what usage is counted by.
type usageKey struct {
	service, via, task, backend string
}

// Traffic is what went over flows to a service.
type Traffic struct {
	// Connections counts flows that began, of any protocol.
	Connections uint64
	// In is towards the tasks, Out from them; bytes have their IP headers.
	BytesIn, BytesOut     uint64
	PacketsIn, PacketsOut uint64
}

func (t *Traffic) add(o Traffic) {
	t.Connections += o.Connections
	t.BytesIn, t.BytesOut = t.BytesIn+o.BytesIn, t.BytesOut+o.BytesOut
	t.PacketsIn, t.PacketsOut = t.PacketsIn+o.PacketsIn, t.PacketsOut+o.PacketsOut
}

// Usage is what one way to one backend of a service is used for, as the nodes of
// its clients count it, or the node that was entered by.
type Usage struct {
	Service string
	// Via is "virtual IP", "mesh", "host port", or "direct" for clients that
	// connect to a task's own address.
	Via string
	// Task and Backend, the address, are empty in sums over them.
	Task    string `json:",omitempty"`
	Backend string `json:",omitempty"`
	// Open are the connections at the moment; TCP connections that are over do
	// not count.
	Open int
	// Total is since Top.Since; it only rises.
	Total Traffic
}

// Top is what the services are used for.
type Top struct {
	// Node is whose clients and entries are counted; "" for the whole cluster.
	Node string
	// At is when the kernel was read, Since when Total began, by the node's clock.
	At, Since time.Time
	Usage     []Usage
	// Cut says that there were more flows than are remembered, so that totals are
	// too small.
	Cut bool `json:",omitempty"`
	// Notes say what could not be found out.
	Notes []string `json:",omitempty"`
}

// Look reads the kernel, unless that was done just now.
func (m *Meter) Look(s *Sources) (Top, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if !m.at.IsZero() && now.Sub(m.at) < meterFresh {
		return m.shown, nil
	}
	spaces := s.spaces()
	flows, err := m.read(slices.Sorted(maps.Keys(spaces)))
	if err != nil {
		return Top{}, err
	}
	if m.totals == nil {
		m.since, m.totals = now, map[usageKey]Traffic{}
	}
	m.shown = m.account(flows, spaces)
	m.shown.Node, m.shown.At, m.shown.Since, m.at = s.node(s.NodeID), now, m.since, now
	if m.forget == nil {
		m.forget = time.AfterFunc(meterIdle, m.drop)
	}
	m.forget.Reset(meterIdle)
	return m.shown, nil
}

// drop forgets the flows when nobody looks any more.
func (m *Meter) drop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = nil
}

// Close ends the meter's timer.
func (m *Meter) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.forget != nil {
		m.forget.Stop()
	}
}

func (m *Meter) read(namespaces []string) (map[string][]netfilter.Tracked, error) {
	read := m.Flows
	if read == nil {
		read = netfilter.Flows
	}
	out := map[string][]netfilter.Tracked{}
	for _, ns := range namespaces {
		flows, err := read(ns)
		if errors.Is(err, fs.ErrNotExist) {
			continue // its task has just ended
		}
		if err != nil {
			return nil, err
		}
		out[ns] = flows
	}
	return out, nil
}

// account adds what the flows did since the last look. The first look after a
// pause counts nothing: nobody knows which flows were counted before.
func (m *Meter) account(flows map[string][]netfilter.Tracked, spaces map[string]*space) Top {
	var top Top
	open := map[usageKey]int{}
	next := map[flowKey]netfilter.Tracked{}
	for ns, list := range flows {
		for _, f := range list {
			key, ok := spaces[ns].of(f)
			if !ok {
				continue
			}
			if !f.Ended {
				open[key]++
			}
			total := m.totals[key]
			id := flowKey{ns, f.Protocol, f.Source, f.Dest, f.Zone}
			if m.last != nil {
				total.add(since(m.last, id, f))
			}
			m.totals[key] = total
			if len(next) < flowsMax {
				next[id] = f
			} else {
				top.Cut = true
			}
		}
	}
	m.last = next
	m.prune(open, spaces)
	for _, key := range slices.SortedFunc(maps.Keys(m.totals), compareUsage) {
		top.Usage = append(top.Usage, Usage{Service: key.service, Via: key.via, Task: key.task, Backend: key.backend,
			Open: open[key], Total: m.totals[key]})
	}
	return top
}

// usagesMax bounds the totals kept one by one.
const usagesMax = 4096

// prune lets go of services that are gone, and where there are too many totals,
// adds up those of tasks that have no connection.
func (m *Meter) prune(open map[usageKey]int, spaces map[string]*space) {
	known := map[string]bool{}
	for _, sp := range spaces {
		sp.services(known)
	}
	many := len(m.totals) > usagesMax
	for key, total := range m.totals {
		switch {
		case open[key] > 0:
		case !known[key.service]:
			delete(m.totals, key)
		case many && key.backend != "":
			delete(m.totals, key)
			all := m.totals[usageKey{service: key.service, via: key.via}]
			all.add(total)
			m.totals[usageKey{service: key.service, via: key.via}] = all
		}
	}
}

// since is what a flow did after it was seen last. A flow with less than before is
// another one that looks the same.
func since(last map[flowKey]netfilter.Tracked, id flowKey, f netfilter.Tracked) Traffic {
	old, seen := last[id]
	if !seen || f.Sent.Packets < old.Sent.Packets || f.Received.Packets < old.Received.Packets {
		return Traffic{1, f.Sent.Bytes, f.Received.Bytes, f.Sent.Packets, f.Received.Packets}
	}
	return Traffic{0, f.Sent.Bytes - old.Sent.Bytes, f.Received.Bytes - old.Received.Bytes,
		f.Sent.Packets - old.Sent.Packets, f.Received.Packets - old.Received.Packets}
}

func compareUsage(a, b usageKey) int {
	return cmp.Or(cmp.Compare(a.service, b.service), cmp.Compare(a.via, b.via), cmp.Compare(a.task, b.task), cmp.Compare(a.backend, b.backend))
}
