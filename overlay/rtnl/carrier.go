package rtnl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"

	"shoal/overlay/vxlan"
)

// How long a new link may take until it carries packets: a work queue of the
// kernel switches it on some time after both its ends are up, most often within a
// millisecond, but it may put off for a second what it does not find urgent
// (net/core/link_watch.c).
const (
	carrierWait  = 3 * time.Second
	carrierPause = 500 * time.Microsecond
)

// end is one end of a pair of links.
type end struct{ namespace, name string }

// wires are the pairs of links that one Apply made, and which ends it set up.
type wires struct {
	pairs []vxlan.AddVeth
	up    map[end]bool
}

// note remembers what an operation that went well did to pairs.
func (w *wires) note(op vxlan.Op) {
	switch o := op.(type) {
	case vxlan.AddVeth:
		w.pairs = append(w.pairs, o)
	case vxlan.SetLink:
		if o.Up {
			if w.up == nil {
				w.up = map[end]bool{}
			}
			w.up[end{o.Namespace, o.Name}] = true
		}
	}
}

// awaitCarrier waits until every new pair whose ends are both up carries packets.
// Until then the kernel drops what is sent over it, in silence and without an
// error: a first packet that is lost there, or its ARP request, makes its sender
// wait for a second.
func (k *Kernel) awaitCarrier(ctx context.Context, w wires) error {
	ctx, cancel := context.WithTimeout(ctx, carrierWait)
	defer cancel()
	var errs []error
	for _, pair := range w.pairs {
		ends := []end{{pair.Namespace, pair.Name}, {pair.PeerNamespace, pair.PeerName}}
		if !w.up[ends[0]] || !w.up[ends[1]] {
			continue
		}
		for _, e := range ends {
			errs = append(errs, k.carries(ctx, e))
		}
	}
	return errors.Join(errs...)
}

func (k *Kernel) carries(ctx context.Context, e end) error {
	failed := func(err error) error {
		return &vxlan.OpError{Op: vxlan.SetLink{Namespace: e.namespace, Name: e.name, Up: true}, Err: err}
	}
	for {
		var state netlink.LinkOperState
		err := k.on(e.namespace, e.name, func(s *space, index int) error {
			link, err := s.netlink.LinkByIndex(index)
			if err == nil {
				state = link.Attrs().OperState
			}
			return err
		})
		if gone(err) != nil {
			return failed(err)
		}
		if err != nil || state == netlink.OperUp {
			return nil
		}
		select {
		case <-ctx.Done():
			return failed(fmt.Errorf("the link is still %s after %s", state, carrierWait))
		case <-time.After(carrierPause):
		}
	}
}
