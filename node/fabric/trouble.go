package fabric

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"shoal/overlay/vxlan"
)

// own stands for the node's own namespace among networks: only records of this
// node's tasks have a part there, those with ports of the node.
const own = ""

// trouble is what went wrong in some namespaces and nowhere else.
type trouble struct {
	namespaces []string
	// behind are the networks, or own, whose endpoint records something in those
	// namespaces may not follow.
	behind []string
	err    error
}

func (t *trouble) Error() string { return t.err.Error() }

func (t *trouble) Unwrap() error { return t.err }

// in says that an error is about some namespaces only, and that nothing there
// depends on endpoint records; no namespace means that no task suffers from it.
func in(err error, namespaces ...string) error {
	if err == nil {
		return nil
	}
	return &trouble{namespaces: namespaces, err: err}
}

// behind says that an error is about one namespace only, which may go on sending by
// what it knew of some networks.
func behind(err error, namespace string, networks ...string) error {
	return &trouble{namespaces: []string{namespace}, behind: networks, err: err}
}

// leaves calls f for each of the errors that an error joins: a *trouble, a
// *vxlan.OpError, or one that does not say where it happened.
func leaves(err error, f func(error)) {
	switch e := err.(type) {
	case nil:
	case *trouble, *vxlan.OpError:
		f(e)
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			leaves(inner, f)
		}
	default:
		if inner := errors.Unwrap(err); inner != nil {
			leaves(inner, f)
		} else {
			f(err)
		}
	}
}

// concerns says whether an error of a step is about one of the namespaces. What
// does not say where it happened is about all of them.
func concerns(err error, namespaces []string) (yes bool) {
	some := func(at []string) bool {
		return slices.ContainsFunc(at, func(ns string) bool { return slices.Contains(namespaces, ns) })
	}
	leaves(err, func(err error) {
		switch e := err.(type) {
		case *trouble:
			yes = yes || some(e.namespaces)
		case *vxlan.OpError:
			yes = yes || some(vxlan.Touches(e.Op))
		default:
			yes = true
		}
	})
	return yes
}

// held lists the networks, or own, whose endpoint records a step that ended with
// err did not put into effect everywhere; not known when that may be all of them. A
// network that is not wished any more goes by its namespace's name.
func held(err error, wish vxlan.Desired) (networks []string, known bool) {
	ids, found := map[string]string{}, map[string]bool{}
	for _, n := range wish.Networks {
		ids[n.Namespace] = n.ID
	}
	known = true
	leaves(err, func(err error) {
		switch e := err.(type) {
		case *trouble:
			for _, id := range e.behind {
				found[id] = true
			}
		case *vxlan.OpError:
			path, lags := vxlan.Lags(e.Op)
			switch {
			case lags && ids[path] != "":
				found[ids[path]] = true
			case lags:
				found[filepath.Base(path)] = true
			}
		default:
			known = false
		}
	})
	return slices.Sorted(maps.Keys(found)), known
}

// sendsTo lists the networks that the balancer of a namespace sends into: a task's
// those of its legs but for the ingress network, which it takes no part in as a
// client, and that of the ingress network itself.
func sendsTo(wish vxlan.Desired, namespace string) (networks []string) {
	ingress := map[string]bool{}
	for _, n := range wish.Networks {
		ingress[n.ID] = n.Balancer != nil
		if n.Namespace == namespace {
			networks = append(networks, n.ID)
		}
	}
	for _, s := range wish.Sandboxes {
		if s.Namespace != namespace {
			continue
		}
		for _, leg := range s.Interfaces {
			if leg.NetworkID != "" && !ingress[leg.NetworkID] {
				networks = append(networks, leg.NetworkID)
			}
		}
	}
	return networks
}

// faults says, by place in words, what an error of a step found wrong there.
func faults(err error) map[string]string {
	out := map[string]string{}
	leaves(err, func(err error) {
		where := "the network"
		switch e := err.(type) {
		case *trouble:
			if len(e.namespaces) > 0 {
				where = place(e.namespaces[0])
			}
		case *vxlan.OpError:
			where = place(vxlan.Touches(e.Op)[0])
		}
		if out[where] != "" {
			out[where] += "; "
		}
		out[where] += strings.ReplaceAll(err.Error(), "\n", "; ")
	})
	return out
}

// persists is how many steps in a row must fail in a place before it is told: many a
// failure is over with the next one.
const persists = 3

// notice tells of places in which steps go on failing, once each, and when they are
// right again. Whoever looks later finds them in Status and Drift.
func (f *Fabric) notice(err error) {
	now, changed := faults(err), false
	for where, why := range now {
		f.failing[where]++
		if f.failing[where] == persists {
			f.cfg.Logger.Warn("a place of the network is not as it should be; it is tried again, and all others go on", "place", where, "error", why)
			changed = true
		}
	}
	for where, times := range f.failing {
		if now[where] != "" {
			continue
		}
		delete(f.failing, where)
		if times >= persists {
			f.cfg.Logger.Info("a place of the network is right again", "place", where)
			changed = true
		}
	}
	if !changed || f.cfg.Troubles == nil {
		return
	}
	var messages []string
	for _, where := range slices.Sorted(maps.Keys(now)) {
		if f.failing[where] >= persists {
			messages = append(messages, fmt.Sprintf("%s is not as it should be: %s", where, now[where]))
		}
	}
	f.cfg.Troubles(messages)
}
