package sim

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/store"
	"shoal/dataplane/lb"
	"shoal/node/plan"
	"shoal/overlay/endpoint"
	"shoal/overlay/gossip"
	"shoal/overlay/vxlan"
)

// Tables complains unless all running hosts hold the same endpoint records and
// see each other.
func (c *Cluster) Tables() (out complaints) {
	var first endpoint.Digest
	firstName := ""
	hosts := c.Hosts()
	for _, h := range hosts {
		n, _ := h.Daemon().rooms()
		if n == nil {
			out.add("%s has no network yet", h.name)
			continue
		}
		alive := 0
		for _, m := range n.Gossip().Members() {
			if m.State == gossip.Alive {
				alive++
			}
		}
		if alive != len(hosts) {
			out.add("%s sees %d of %d hosts alive", h.name, alive, len(hosts))
		}
		digest := living(n.Table().Digest(), c)
		if firstName == "" {
			first, firstName = digest, h.name
		} else if digest.Sum() != first.Sum() {
			out.add("tables of %s and %s differ: %s", firstName, h.name, differences(first, digest, c))
		}
		if behind := n.Table().Behind(); len(behind) > 0 {
			out.add("%s knows that it lacks writes of %v", h.name, behind)
		}
	}
	return out
}

// living keeps the entries of hosts that run: what is left of others may be
// known here and not there, and is used nowhere.
func living(d endpoint.Digest, c *Cluster) (out endpoint.Digest) {
	for _, e := range d {
		if h := c.ByID(e.Owner); h != nil && h.Daemon() != nil {
			out = append(out, e)
		}
	}
	return out
}

func differences(a, b endpoint.Digest, c *Cluster) (out []string) {
	of := map[string]endpoint.DigestEntry{}
	for _, e := range a {
		of[e.Owner] = e
	}
	for _, e := range b {
		if of[e.Owner] != e {
			out = append(out, fmt.Sprintf("%s: %+v, %+v", c.ByID(e.Owner).name, of[e.Owner], e))
		}
	}
	return out
}

// Kernels complains unless every host's kernel is the fixpoint of its plan, made
// anew from what the node knows now.
func (c *Cluster) Kernels() (out complaints) {
	for _, h := range c.Hosts() {
		d := h.Daemon()
		if d == nil {
			continue
		}
		if n, _ := d.rooms(); n != nil {
			n.checkKernel(&out)
		}
	}
	return out
}

func (n *network) checkKernel(out *complaints) {
	ctx, h := context.Background(), n.d.h
	wish := n.compile()
	actual, err := overlay{h.machine}.Read(ctx, wish.Overlay)
	if err != nil {
		out.add("%s: read the overlay: %v", h.name, err)
		return
	}
	for _, op := range vxlan.Plan(wish.Overlay, actual) {
		out.add("%s: overlay needs %v", h.name, op)
	}
	for _, want := range wish.Balancers {
		have, err := balancer{h.machine}.Read(ctx, want.Namespace)
		if err == nil {
			want, err = want.Canonical()
		}
		if err != nil {
			out.add("%s: balancer in %s: %v", h.name, want.Namespace, err)
			continue
		}
		for _, op := range lb.Plan(want, have) {
			out.add("%s: balancer in %s needs %v", h.name, want.Namespace, op)
		}
	}
	for _, want := range wish.Translations {
		if have, err := (translator{h.machine}).ReadTranslation(ctx, want.Namespace); err != nil || !reflect.DeepEqual(have, want) {
			out.add("%s: translation in %q is %+v instead of %+v (%v)", h.name, want.Namespace, have, want, err)
		}
	}
}

// compile makes the node's plan from what its rooms hold at this moment.
func (n *network) compile() plan.Output {
	v := n.Table().View()
	networks, services, nodes := n.Lists()
	in := plan.Input{
		Self: n.Fabric().Self(), Networks: networks, Services: services, Nodes: nodes,
		Local: n.Fabric().Locals(), Records: v.All(), Silent: map[string]bool{},
	}
	for _, owner := range v.Owners() {
		in.Silent[owner] = v.Down(owner)
	}
	return plan.Compile(in)
}

// Reach complains unless, on every host, balancers and names lead to exactly the
// tasks that the managers count as running.
func (o *Operator) Reach() (out complaints) {
	leader := o.c.Leader()
	if leader == nil {
		out.add("no manager leads")
		return out
	}
	v := managerView(leader)
	for _, h := range o.c.Hosts() {
		d := h.Daemon()
		if d == nil {
			continue
		}
		n, _ := d.rooms()
		if n == nil {
			out.add("%s has no network yet", h.name)
			continue
		}
		n.checkMesh(v, &out)
		for _, l := range n.Fabric().Locals() {
			n.checkLocal(v, l, &out)
		}
	}
	return out
}

// running lists the addresses of a service's running tasks on a network.
func running(v *store.View, serviceID, networkID string) (out []netip.Addr) {
	for _, t := range v.TasksByService(serviceID) {
		if t.Status.State != swarm.TaskStateRunning || !t.Wanted() || down(v, t.NodeID) {
			continue
		}
		for _, a := range t.NetworksAttachments {
			if a.Network.ID == networkID {
				for _, p := range a.Addresses {
					out = append(out, p.Addr())
				}
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// checkMesh follows every published port of this host.
func (n *network) checkMesh(v *store.View, out *complaints) {
	ctx, h := context.Background(), n.d.h
	host, err := translator{h.machine}.ReadTranslation(ctx, "")
	if err != nil {
		out.add("%s: %v", h.name, err)
	}
	ingress := v.NetworkByName("ingress")
	for _, s := range v.Services() {
		for _, p := range s.Endpoint.Ports {
			table, err := balancer{h.machine}.Read(ctx, n.Fabric().Self().NamespacePath(ingress.ID))
			if err != nil {
				out.add("%s: %v", h.name, err)
				continue
			}
			var got []netip.Addr // over every family that the port is forwarded for
			for _, f := range host.Forwards {
				if uint32(f.Port) == p.PublishedPort && string(f.Protocol) == string(p.Protocol) {
					got = append(got, backends(table, f.To.Addr(), f.To.Port())...)
				}
			}
			slices.SortFunc(got, netip.Addr.Compare)
			if want := running(v, s.ID, ingress.ID); !slices.Equal(got, want) {
				out.add("%s leads port %d of %s to %v instead of %v", h.name, p.PublishedPort, s.Spec.Name, got, want)
			}
		}
	}
}

// backends lists what takes new connections behind a front.
func backends(table lb.Desired, addr netip.Addr, port uint16) (out []netip.Addr) {
	for _, s := range table.Services {
		if s.Front.Addr != addr || s.Front.Port != port {
			continue
		}
		for _, b := range s.Backends {
			if !b.Draining {
				out = append(out, b.Addr)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// checkLocal follows every name and virtual IP inside one task.
func (n *network) checkLocal(v *store.View, l plan.Local, out *complaints) {
	table, err := balancer{n.d.h.machine}.Read(context.Background(), l.Namespace)
	if err != nil {
		out.add("%s: %v", n.d.h.name, err)
		return
	}
	for _, a := range l.Task.NetworksAttachments {
		if a.Network.Spec.Ingress {
			continue
		}
		for _, s := range v.ServicesByNetwork(a.Network.ID) {
			n.checkNames(v, s, a.Network.ID, table, out)
		}
	}
}

func (n *network) checkNames(v *store.View, s *api.Service, networkID string, table lb.Desired, out *complaints) {
	tasks, on := running(v, s.ID, networkID), []string{networkID}
	want := tasks
	for _, vip := range s.Endpoint.VirtualIPs {
		if vip.NetworkID != networkID {
			continue
		}
		want = []netip.Addr{vip.Addr.Addr()}
		if got := backends(table, vip.Addr.Addr(), 0); !slices.Equal(got, tasks) {
			out.add("%s leads the virtual IP of %s to %v instead of %v", n.d.h.name, s.Spec.Name, got, tasks)
		}
	}
	for name, want := range map[string][]netip.Addr{s.Spec.Name: want, "tasks." + s.Spec.Name: tasks} {
		got := n.names.addrs(on, name)
		got = slices.Clone(got)
		slices.SortFunc(got, netip.Addr.Compare)
		if !slices.Equal(got, want) {
			out.add("%s answers %s with %v instead of %v", n.d.h.name, name, got, want)
		}
	}
}
