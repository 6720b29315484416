package sim

import (
	"fmt"

	"shoal/control/api"
	"shoal/control/store"
)

// Agree complains unless one manager leads and all that run hold byte-equal
// state at the same index.
func (c *Cluster) Agree() (out complaints) {
	leader := c.Leader()
	if leader == nil {
		out.add("no manager leads")
		return out
	}
	want := managerView(leader)
	digest, err := want.Digest()
	if err != nil {
		out.add("digest of %s: %v", leader.name, err)
	}
	for _, h := range c.Managers() {
		v := managerView(h)
		if v.Index() != want.Index() {
			out.add("%s is at index %d, the leader %s at %d", h.name, v.Index(), leader.name, want.Index())
			continue
		}
		if d, err := v.Digest(); err != nil || d != digest {
			out.add("%s and the leader %s differ at index %d (%v)", h.name, leader.name, v.Index(), err)
		}
	}
	return out
}

// owners finds what is owned twice.
type owners struct {
	of  map[string]string
	out complaints
}

func (o *owners) claim(owner, format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	if other, taken := o.of[what]; taken && other != owner {
		o.out.add("%s belongs to %s and to %s", what, other, owner)
	}
	o.of[what] = owner
}

// OneOwner complains about addresses, ports, network identifiers and node
// numbers that two objects of a state claim.
func OneOwner(v *store.View) complaints {
	o := &owners{of: map[string]string{}}
	for _, n := range v.Networks() {
		if n.VNI != 0 {
			o.claim("network "+n.Spec.Name, "VNI %d", n.VNI)
		}
		if n.IPAMOptions != nil {
			for _, cfg := range n.IPAMOptions.Configs {
				o.claim("network "+n.Spec.Name, "subnet %s", cfg.Subnet)
				o.claim("network "+n.Spec.Name, "address %s of network %s", cfg.Gateway, n.ID)
			}
		}
	}
	for _, n := range v.Nodes() {
		o.claim("node "+n.ID, "number %d", n.Number)
	}
	for _, s := range v.Services() {
		o.service(s)
	}
	for _, t := range v.Tasks() {
		if api.Terminal(t.Status.State) {
			continue
		}
		for _, a := range t.NetworksAttachments {
			for _, p := range a.Addresses {
				o.claim("task "+t.ID, "address %s of network %s", p.Addr(), a.Network.ID)
			}
		}
	}
	return o.out
}

func (o *owners) service(s *api.Service) {
	for _, vip := range s.Endpoint.VirtualIPs {
		if vip.Addr.IsValid() {
			o.claim("service "+s.Spec.Name, "address %s of network %s", vip.Addr.Addr(), vip.NetworkID)
		}
	}
	for _, p := range s.Endpoint.Ports {
		if p.PublishedPort != 0 && p.PublishMode != "host" {
			o.claim("service "+s.Spec.Name, "port %d/%s", p.PublishedPort, p.Protocol)
		}
	}
}

// falls complains about tasks whose state fell in a commit.
func falls(changes []store.Change) (out complaints) {
	for _, ch := range changes {
		before, ok := ch.Old.(*api.Task)
		if !ok || before == nil {
			continue
		}
		after, ok := ch.New.(*api.Task)
		if ok && after != nil && api.Rank(after.Status.State) < api.Rank(before.Status.State) {
			out.add("task %s fell from %s to %s", after.ID, before.Status.State, after.Status.State)
		}
	}
	return out
}
