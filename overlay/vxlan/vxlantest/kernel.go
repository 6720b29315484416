// Package vxlantest is a kernel in memory for tests of what plans and applies
// overlay/vxlan operations. It refuses what the real one refuses: a second link
// of the same name, a VNI that is taken, a master that is no bridge, an entry on
// a link that is not there, a route on a link that is down or through a gateway
// that is not on the link. It also does what the real one does unasked: the
// other end of a veth pair goes with the first, ports, addresses, entries and
// routes go with their links, and IPv4 addresses with the first of their subnet.
package vxlantest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"shoal/overlay/vxlan"
)

// OverlayPrefix starts the file name of every overlay namespace; that is how the
// kernel knows them from sandboxes.
const OverlayPrefix = "net-"

// Kernel is one node's kernel. It is not safe for concurrent use.
type Kernel struct {
	spaces map[string]*space
	index  int
	// Refuse, if not nil, says why an operation cannot be carried out.
	Refuse func(vxlan.Op) error
	// FailAt, from 1, makes the n-th operation from now fail with Failure, and all
	// after it, as when the process ends.
	FailAt  int
	Failure error
	// Unreadable says why a namespace cannot be read, by path.
	Unreadable map[string]error
	// Looked counts how often each namespace was read, by path.
	Looked map[string]int
}

type space struct {
	overlay bool
	links   map[string]*link
	sysctls map[string]string
	rules   []vxlan.Rule
}

type link struct {
	vxlan.Link
	space, name string
	peer        *link
}

// New returns a kernel with the node's own namespace in it.
func New() *Kernel {
	k := &Kernel{spaces: make(map[string]*space), Unreadable: map[string]error{}, Looked: map[string]int{}}
	k.addSpace("")
	return k
}

func (k *Kernel) addSpace(path string) {
	overlay := strings.HasPrefix(filepath.Base(path), OverlayPrefix)
	s := &space{overlay: overlay, links: make(map[string]*link), sysctls: make(map[string]string)}
	for _, key := range append(vxlan.HostSysctls(), vxlan.OverlaySysctls()...) {
		s.sysctls[key] = "?" // whatever the machine has
	}
	k.spaces[path] = s
	if path != "" {
		k.addLink(path, "lo", vxlan.Link{Kind: vxlan.KindLoopback})
	}
}

func (k *Kernel) addLink(path, name string, l vxlan.Link) *link {
	k.index++
	l.Index = k.index
	added := &link{Link: l, space: path, name: name}
	k.spaces[path].links[name] = added
	return added
}

// AddSandbox makes a task's namespace, as its agent does.
func (k *Kernel) AddSandbox(path string) { k.addSpace(path) }

// Vanish ends a namespace with everything in it, as when it is deleted by hand.
func (k *Kernel) Vanish(path string) {
	s := k.spaces[path]
	if s == nil || path == "" {
		return
	}
	for _, l := range slices.Collect(maps.Values(s.links)) {
		k.delLink(l)
	}
	delete(k.spaces, path)
}

// LoseSysctl takes a setting away, as when a module is not loaded.
func (k *Kernel) LoseSysctl(path, key string) { delete(k.spaces[path].sysctls, key) }

// Read returns what rtnl would return for desired.
func (k *Kernel) Read(_ context.Context, desired vxlan.Desired) (vxlan.Actual, error) {
	sandboxes := map[string]bool{"": true}
	for _, s := range desired.Sandboxes {
		sandboxes[s.Namespace] = true
	}
	out := vxlan.Actual{Namespaces: make(map[string]vxlan.Namespace)}
	for path, s := range k.spaces {
		if !s.overlay && !sandboxes[path] {
			continue
		}
		if err := k.Unreadable[path]; err != nil {
			if out.Unread == nil {
				out.Unread = map[string]error{}
			}
			out.Unread[path] = err
			continue
		}
		k.Looked[path]++
		ns := vxlan.Namespace{Overlay: s.overlay, Links: make(map[string]vxlan.Link), Sysctls: maps.Clone(s.sysctls), Rules: slices.Clone(s.rules)}
		for name, l := range s.links {
			if owns(path, s.overlay)(l.Kind, name) {
				ns.Links[name] = l.copy()
			}
		}
		out.Namespaces[path] = ns
	}
	return out, nil
}

// ReadPeers returns what rtnl would return for a network.
func (k *Kernel) ReadPeers(_ context.Context, n vxlan.Network) (vxlan.Link, bool, error) {
	s := k.spaces[n.Namespace]
	if s == nil {
		return vxlan.Link{}, false, nil
	}
	if err := k.Unreadable[n.Namespace]; err != nil {
		return vxlan.Link{}, false, err
	}
	k.Looked[n.Namespace]++
	l := s.links[vxlan.TunnelName(n.VNI)]
	if l == nil || l.Kind != vxlan.KindVXLAN {
		return vxlan.Link{}, false, nil
	}
	return l.copy(), true, nil
}

func owns(path string, overlay bool) func(kind, name string) bool {
	switch {
	case path == "":
		return vxlan.OwnsHostLink
	case overlay:
		return vxlan.OwnsOverlayLink
	}
	return vxlan.OwnsSandboxLink
}

func (l *link) copy() vxlan.Link {
	out := l.Link
	if l.peer != nil {
		out.PeerIndex = l.peer.Index
	}
	out.Addrs, out.Routes = slices.Clone(l.Addrs), slices.Clone(l.Routes)
	out.Forward, out.Static, out.Neighbors = slices.Clone(l.Forward), slices.Clone(l.Static), slices.Clone(l.Neighbors)
	return out
}

// Apply carries the operations out, but for those that it refuses and what builds on
// them.
func (k *Kernel) Apply(_ context.Context, ops []vxlan.Op) error {
	var failed vxlan.Failed
	for _, op := range ops {
		if failed.Blocks(op) {
			continue
		}
		if k.FailAt > 0 {
			if k.FailAt--; k.FailAt == 0 {
				return errors.Join(append(failed.Errs(), &vxlan.OpError{Op: op, Err: k.Failure})...)
			}
		}
		var err error
		if k.Refuse != nil {
			err = k.Refuse(op)
		}
		if err == nil {
			err = k.apply(op)
		}
		if err != nil {
			failed.Add(op, err)
		}
	}
	return errors.Join(failed.Errs()...)
}

// Links returns every link of the node as "path name", sorted, loopbacks aside.
func (k *Kernel) Links() (out []string) {
	for path, s := range k.spaces {
		for name, l := range s.links {
			if l.Kind != vxlan.KindLoopback {
				out = append(out, path+" "+name)
			}
		}
	}
	slices.Sort(out)
	return out
}

// Namespaces returns the paths of all namespaces but the node's own, sorted.
func (k *Kernel) Namespaces() (out []string) {
	for path := range k.spaces {
		if path != "" {
			out = append(out, path)
		}
	}
	slices.Sort(out)
	return out
}

func (k *Kernel) find(path, name string) (*link, error) {
	s := k.spaces[path]
	if s == nil {
		return nil, fmt.Errorf("namespace %q: %w", path, fs.ErrNotExist)
	}
	if l := s.links[name]; l != nil {
		return l, nil
	}
	return nil, fmt.Errorf("link %q in namespace %q: %w", name, path, fs.ErrNotExist)
}

// room says whether a link of that name can be made.
func (k *Kernel) room(path, name string) error {
	s := k.spaces[path]
	switch {
	case s == nil:
		return fmt.Errorf("namespace %q: %w", path, fs.ErrNotExist)
	case len(name) == 0 || len(name) > 15 || strings.ContainsAny(name, "/ "):
		return fmt.Errorf("link name %q: %w", name, fs.ErrInvalid)
	case s.links[name] != nil:
		return fmt.Errorf("link %q in namespace %q: %w", name, path, fs.ErrExist)
	}
	return nil
}

func (k *Kernel) delLink(l *link) {
	s := k.spaces[l.space]
	if s.links[l.name] != l {
		return
	}
	delete(s.links, l.name)
	for _, other := range s.links {
		if other.Master == l.name {
			other.leave()
		}
	}
	if l.peer != nil {
		k.delLink(l.peer)
	}
}

// leave takes a port out of its bridge.
func (l *link) leave() { l.Master, l.Port, l.Static = "", vxlan.Port{}, nil }

// sameSubnet says whether the kernel counts two IPv4 addresses as one subnet.
func sameSubnet(a, b netip.Prefix) bool { return a.Addr().Is4() && a.Masked() == b.Masked() }
