package sim

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"shoal/control/store"
	"shoal/dataplane/lb"
	"shoal/overlay/endpoint"
)

// watch is what the checkers that look all the time remember.
type watch struct {
	c *Cluster

	mu      sync.Mutex
	digests map[uint64]seenDigest // by index
	ready   map[string]readyTask  // by task id
	meet    map[[2]string]time.Time
}

type seenDigest struct {
	sum  [sha256.Size]byte
	host string
}

// readyTask is a task that a host offers to all others.
type readyTask struct {
	host    *Host
	service string // name
	network map[string]bool
	since   time.Time
}

func newWatch(c *Cluster) *watch {
	return &watch{c: c, digests: map[uint64]seenDigest{}, ready: map[string]readyTask{}, meet: map[[2]string]time.Time{}}
}

// digestEvery is how many commits lie between two comparisons of whole states.
const digestEvery = 8

// follow looks at every commit of one manager until ctx ends.
func (w *watch) follow(ctx context.Context, h *Host, s *store.Store) {
	for ctx.Err() == nil {
		for b := range s.Subscribe(ctx, 4096) {
			for _, text := range falls(b.Changes) {
				w.c.fail("%s at index %d: %s", h.name, b.Index, text)
			}
			if v := s.View(); v.Index()%digestEvery == 0 {
				w.compare(h, v)
			}
		}
	}
}

// compare holds a state against what other managers had at the same index.
func (w *watch) compare(h *Host, v *store.View) {
	for _, text := range OneOwner(v) {
		w.c.fail("%s at index %d: %s", h.name, v.Index(), text)
	}
	sum, err := v.Digest()
	if err != nil {
		w.c.fail("digest of %s at index %d: %v", h.name, v.Index(), err)
		return
	}
	w.mu.Lock()
	other, known := w.digests[v.Index()]
	if !known {
		w.digests[v.Index()] = seenDigest{sum, h.name}
	}
	w.mu.Unlock()
	if known && other.sum != sum {
		w.c.fail("%s and %s differ at index %d", other.host, h.name, v.Index())
	}
}

// followTable looks at every version of one host's endpoint table until ctx
// ends: what was undone must not come back, nor an older write replace a newer.
func (w *watch) followTable(ctx context.Context, h *Host, t *endpoint.Table) {
	type key struct{ owner, key string }
	newest := map[key]endpoint.Position{}
	shown := map[key]bool{}
	for ctx.Err() == nil {
		changed := t.Changed()
		now := map[key]bool{}
		for _, r := range t.View().All() {
			k, before := key{r.Owner, r.Key}, newest[key{r.Owner, r.Key}]
			if r.At().Before(before) || !shown[k] && before != (endpoint.Position{}) && !before.Before(r.At()) {
				w.c.fail("%s shows write %v of %s about %s again after %v", h.name, r.At(), r.Owner, r.Key, before)
			}
			newest[k], now[k] = r.At(), true
		}
		shown = now
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// offer notes that a host offers a task to the others, or no longer does.
func (w *watch) offer(h *Host, taskID string, v endpoint.Value, ready bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	old, known := w.ready[taskID]
	switch {
	case !ready:
		delete(w.ready, taskID)
	case !known || old.host != h:
		r := readyTask{host: h, service: v.ServiceName, network: map[string]bool{}, since: time.Now()}
		for _, a := range v.Attachments {
			r.network[a.NetworkID] = true
		}
		w.ready[taskID] = r
	}
}

// withdrawAll forgets what a host offered whose daemon ends.
func (w *watch) withdrawAll(h *Host) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, r := range w.ready {
		if r.host == h {
			delete(w.ready, id)
		}
	}
}

// settled is for how long a task must have been offered, and two hosts have
// heard each other, before a table without the task is wrong.
const settled = 10 * time.Second

// disturbed notes that hosts did not hear each other until now.
func (w *watch) disturbed(hosts ...*Host) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for _, a := range hosts {
		for _, b := range w.c.hosts {
			w.meet[[2]string{a.name, b.name}], w.meet[[2]string{b.name, a.name}] = now, now
		}
	}
}

// applied looks at what a host's balancer was just told: no service may lose its
// last backend while another host offers a healthy task of it.
func (w *watch) applied(h *Host, before, after lb.Desired) {
	had := map[lb.Front]bool{}
	for _, s := range before.Services {
		had[s.Front] = len(s.Eligible()) > 0
	}
	for _, s := range after.Services {
		if !had[s.Front] || len(s.Eligible()) > 0 {
			continue
		}
		if r, found := w.healthy(h, s); found {
			w.c.fail("%s: service %s in %s lost its last backend although %s offers a task of it since %s",
				h.name, s.Name, after.Namespace, r.host.name, time.Since(r.since))
		}
	}
}

func (w *watch) healthy(h *Host, s lb.Service) (readyTask, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.ready {
		if r.service != s.Name || time.Since(r.since) < settled || time.Since(w.meet[[2]string{h.name, r.host.name}]) < settled {
			continue
		}
		if w.c.underlay.Reachable(h.addr, r.host.addr) && onNetworkOf(s, r, h) {
			return r, true
		}
	}
	return readyTask{}, false
}

// onNetworkOf says whether the task can stand behind the front: a published port
// leads to any task, a virtual IP to those on its network.
func onNetworkOf(s lb.Service, r readyTask, h *Host) bool {
	if s.Front.Port != 0 {
		return true
	}
	d := h.Daemon()
	if d == nil {
		return false
	}
	n, a := d.rooms()
	if n == nil {
		return false
	}
	for _, service := range a.Assigned().Services {
		for _, vip := range service.Endpoint.VirtualIPs {
			if vip.Addr.IsValid() && vip.Addr.Addr() == s.Front.Addr && r.network[vip.NetworkID] {
				return true
			}
		}
	}
	return false
}
