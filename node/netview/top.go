package netview

import (
	"context"
	"net/netip"
	"net/url"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"shoal/dataplane/lb"
	"shoal/dataplane/netfilter"
	"shoal/node/plan"
	"shoal/overlay/endpoint"
)

// The ways to a service.
const (
	viaVirtualIP = "virtual IP"
	viaMesh      = "mesh"
	viaHostPort  = "host port"
	viaDirect    = "direct"
)

// space says what the flows of one namespace are for.
type space struct {
	own      map[netip.Addr]bool
	fronts   map[lb.Front]front
	hosted   map[lb.Front]usageKey // ports of the task itself that the node forwards to
	backends map[netip.Addr]usageKey
}

// front is a balanced service and the tasks behind it, by address.
type front struct {
	service, via string
	tasks        map[netip.Addr]string
}

// protocols are the numbers of IANA's registry.
var protocols = map[byte]lb.Protocol{unix.IPPROTO_TCP: lb.TCP, unix.IPPROTO_UDP: lb.UDP, unix.IPPROTO_SCTP: lb.SCTP}

// of says what a flow is for, false for what is no service's.
func (s *space) of(f netfilter.Tracked) (usageKey, bool) {
	at := lb.Front{Addr: f.Dest.Addr(), Port: f.Dest.Port(), Protocol: protocols[f.Protocol]}
	if key, ok := s.hosted[at]; ok {
		return key, true
	}
	if s.own[f.Dest.Addr()] && s.fronts[at].service == "" {
		return usageKey{}, false // somebody else's flow to this task is counted where it began
	}
	server := f.Server.Addr()
	for _, at := range []lb.Front{at, {Addr: at.Addr}} {
		if front, ok := s.fronts[at]; ok {
			return usageKey{front.service, front.via, front.tasks[server], server.String()}, true
		}
	}
	key, ok := s.backends[f.Dest.Addr()]
	return key, ok
}

// services notes which services the namespace's flows may be for.
func (s *space) services(known map[string]bool) {
	for _, f := range s.fronts {
		known[f.service] = true
	}
	for _, key := range s.hosted {
		known[key.service] = true
	}
	for _, key := range s.backends {
		known[key.service] = true
	}
}

// spaces describes the namespaces in which services' flows are counted: those of
// tasks, and the routing mesh's.
func (s *Sources) spaces() map[string]*space {
	wish := s.Fabric.Wish()
	out := map[string]*space{}
	get := func(path string) *space {
		if out[path] == nil {
			out[path] = &space{own: map[netip.Addr]bool{}, fronts: map[lb.Front]front{}, hosted: map[lb.Front]usageKey{}}
		}
		return out[path]
	}
	mesh := map[string]bool{}
	for _, n := range wish.Overlay.Networks {
		mesh[n.Namespace] = n.Balancer != nil
	}
	for _, d := range wish.Balancers {
		via := viaVirtualIP
		if mesh[d.Namespace] {
			via = viaMesh
		}
		for _, svc := range d.Services {
			f := front{service: svc.Name, via: via, tasks: map[netip.Addr]string{}}
			for _, b := range svc.Backends {
				f.tasks[b.Addr] = b.Task
			}
			get(d.Namespace).fronts[svc.Front] = f
		}
	}
	backends := s.backends()
	for _, l := range s.Fabric.Locals() {
		sp := get(l.Namespace)
		sp.backends = backends
		for _, a := range l.Task.NetworksAttachments {
			for _, p := range a.Addresses {
				sp.own[p.Addr()] = true
			}
		}
		s.host(sp, l, wish)
	}
	return out
}

// host adds the ports of the node that lead to a task.
func (s *Sources) host(sp *space, l plan.Local, wish plan.Output) {
	for _, t := range wish.Translations {
		for _, f := range t.Forwards {
			if t.Namespace == "" && l.Gateway.IsValid() && f.To.Addr() == l.Gateway.Addr() {
				at := lb.Front{Addr: f.To.Addr(), Port: f.To.Port(), Protocol: f.Protocol}
				sp.hosted[at] = usageKey{l.Task.ServiceName, viaHostPort, plan.TaskName(l.Task), f.To.Addr().String()}
			}
		}
	}
}

// backends are the tasks' own addresses.
func (s *Sources) backends() map[netip.Addr]usageKey {
	out := map[netip.Addr]usageKey{}
	for _, r := range s.View().All() {
		if r.Key == endpoint.NodeKey || r.Value.ServiceName == "" {
			continue
		}
		for _, a := range r.Value.Attachments {
			for _, addr := range a.Addrs {
				out[addr] = usageKey{r.Value.ServiceName, viaDirect, r.Value.TaskName, addr.String()}
			}
		}
	}
	return out
}

// Top shows what services are used for: by=service (the default) or by=backend,
// of this node or, with cluster, of all nodes together.
func (s *Sources) Top(ctx context.Context, q url.Values) (Top, error) {
	top, err := s.Meter.Look(s)
	if err != nil {
		return top, err
	}
	if q.Has("cluster") && !q.Has(relayed) && s.Peers != nil {
		top = s.cluster(ctx, top)
	}
	top.Usage = sum(top.Usage, q.Get("by") == "backend")
	return top, nil
}

// cluster adds what the other nodes count.
func (s *Sources) cluster(ctx context.Context, own Top) Top {
	answers, errs := ask[Top](ctx, s.Peers, s.others(), "/shoal/top", url.Values{"by": {"backend"}})
	out := own
	out.Node, out.Usage, out.Notes = "", slices.Clone(own.Usage), slices.Clone(own.Notes)
	for _, id := range mapKeys(answers) {
		a := answers[id]
		out.Usage, out.Cut = append(out.Usage, a.Usage...), out.Cut || a.Cut
		out.Since = latest(out.Since, a.Since)
	}
	for _, id := range mapKeys(errs) {
		out.Notes = append(out.Notes, "without "+s.node(id)+": "+errs[id].Error())
	}
	return out
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// sum adds up usage by service and way, or also by backend.
func sum(list []Usage, byBackend bool) []Usage {
	at := map[usageKey]int{}
	out := []Usage{}
	for _, u := range list {
		if !byBackend {
			u.Task, u.Backend = "", ""
		}
		key := usageKey{u.Service, u.Via, u.Task, u.Backend}
		i, known := at[key]
		if !known {
			at[key] = len(out)
			out = append(out, u)
			continue
		}
		out[i].Open += u.Open
		out[i].Total.add(u.Total)
	}
	slices.SortFunc(out, func(a, b Usage) int {
		return compareUsage(usageKey{a.Service, a.Via, a.Task, a.Backend}, usageKey{b.Service, b.Via, b.Task, b.Backend})
	})
	return out
}
