// Package rtnl is the kernel side of the overlay: it reads what Shoal owns of
// links, addresses, routes, forwarding entries, neighbours and kernel settings,
// and applies the operations that overlay/vxlan planned. All of it goes
// through rtnetlink sockets that were opened inside the namespace they serve and
// are kept, so that no thread has to change namespaces for it; only settings
// below /proc/sys do.
//
// Ownership: in overlay namespaces every link, address and entry; on the host
// the links whose names overlay/vxlan makes; in a task's namespace the ethN
// veth ends; everywhere only routes with the protocol number Protocol.
//
// Cost: Read takes four dumps and some small files for an overlay namespace,
// three dumps for a sandbox, about 0.2 ms a namespace, and time linear in the
// number of peers (30 ms for 5,000). ReadPeers takes one look at a link and the two
// dumps of entries of one overlay namespace: with vxlan.PlanPeers it follows
// endpoint changes without looking at any other namespace.
//
// The package decides nothing: no policy, no clock but for bounded retries.
package rtnl

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"shoal/overlay/netns"
	"shoal/overlay/vxlan"
)

// Protocol marks Shoal's routes (rtm_protocol, rtnetlink(7): numbers above
// static are free for users).
const Protocol = 83

// Config says which part of the machine a Kernel looks after.
type Config struct {
	// Host is the node's own namespace, "" for the process's own.
	Host string
	// Directory holds the overlay namespaces; those in it whose file name starts
	// with Prefix are Shoal's, also when no network wants them any more.
	Directory string
	Prefix    string // "net-" when empty
}

// Kernel reads and changes one node's kernel. Its methods may be called from
// several goroutines; they take turns.
type Kernel struct {
	config Config

	mu     sync.Mutex
	spaces map[string]*space // by path as in vxlan.Actual
	// underlays are the namespaces that the sockets of tunnels may be in.
	underlays map[string]bool
}

// New returns a Kernel after making sure that the node's own namespace opens.
// Close it to let the sockets go.
func New(config Config) (*Kernel, error) {
	if config.Prefix == "" {
		config.Prefix = "net-"
	}
	k := &Kernel{config: config, spaces: make(map[string]*space), underlays: map[string]bool{"": true}}
	if _, err := k.open(""); err != nil {
		return nil, fmt.Errorf("open the node's own network: %w", err)
	}
	return k, nil
}

// Close closes every socket and namespace handle. What was applied stays.
func (k *Kernel) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for path := range k.spaces {
		k.drop(path)
	}
	return nil
}

// Read returns the actual state of everything that Plan needs for desired: the
// node's own namespace, all overlay namespaces (wished or left over) and the
// sandboxes that desired lists. What cannot be read is among Unread, and an error
// only where it is the node's own namespace.
func (k *Kernel) Read(ctx context.Context, desired vxlan.Desired) (vxlan.Actual, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	paths, err := k.scope(desired)
	if err != nil {
		return vxlan.Actual{}, err
	}
	k.underlays = map[string]bool{"": true}
	for _, n := range desired.Networks {
		k.underlays[n.Underlay] = true
	}
	actual := vxlan.Actual{Namespaces: make(map[string]vxlan.Namespace, len(paths))}
	for path, kind := range paths {
		if err := ctx.Err(); err != nil {
			return vxlan.Actual{}, fmt.Errorf("read network namespaces: %w", err)
		}
		ns, exists, err := k.read(path, kind)
		switch {
		case err != nil && kind == host:
			return vxlan.Actual{}, fmt.Errorf("read the node's own network: %w", err)
		case err != nil:
			if actual.Unread == nil {
				actual.Unread = map[string]error{}
			}
			actual.Unread[path] = err
			k.drop(path) // the next look begins with fresh sockets
		case exists:
			actual.Namespaces[path] = ns
		}
	}
	k.forget(paths)
	return actual, nil
}

// ReadPeers returns the vxlan link of a network with its tables, and nothing else of
// it, for vxlan.PlanPeers; false where there is no such link.
func (k *Kernel) ReadPeers(ctx context.Context, n vxlan.Network) (vxlan.Link, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return vxlan.Link{}, false, err
	}
	link, there, err := k.readPeers(n.Namespace, vxlan.TunnelName(n.VNI))
	if err != nil {
		return vxlan.Link{}, false, fmt.Errorf("read %s in network namespace %q: %w", vxlan.TunnelName(n.VNI), n.Namespace, err)
	}
	return link, there, nil
}

// kind of a namespace: what in it is Shoal's.
type kind int

const (
	host kind = iota
	overlay
	sandbox
)

// scope lists the namespaces to read.
func (k *Kernel) scope(desired vxlan.Desired) (map[string]kind, error) {
	paths := map[string]kind{"": host}
	if k.config.Directory != "" {
		found, err := netns.List(k.config.Directory)
		if err != nil {
			return nil, err
		}
		for _, path := range found {
			if k.overlay(path) {
				paths[path] = overlay
			}
		}
	}
	for _, n := range desired.Networks {
		paths[n.Namespace] = overlay
	}
	for _, s := range desired.Sandboxes {
		paths[s.Namespace] = sandbox
	}
	return paths, nil
}

// dumpsAtMost bounds how often an interrupted dump is repeated: the kernel
// interrupts one when the table changes while it is read.
const dumpsAtMost = 20

// dump repeats a read until the kernel calls it consistent.
func dump[T any](read func() (T, error)) (out T, err error) {
	for range dumpsAtMost {
		out, err = read()
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return out, err
}

// replyTimeout bounds the wait for one answer of the kernel.
const replyTimeout = 10 * time.Second
