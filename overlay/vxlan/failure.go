package vxlan

import "fmt"

// OpError is an operation that could not be carried out.
type OpError struct {
	Op  Op
	Err error
}

func (e *OpError) Error() string { return fmt.Sprintf("apply %q: %v", e.Op, e.Err) }

// Unwrap returns why.
func (e *OpError) Unwrap() error { return e.Err }

// Touches lists the namespaces that suffer when the operation is not carried out.
func Touches(op Op) []string {
	at, peer, both := at(op)
	if both && peer.namespace != at.namespace {
		return []string{at.namespace, peer.namespace}
	}
	return []string{at.namespace}
}

// Lags says whether the overlay namespace at path goes on sending by what it knew
// before when the operation is not carried out: a tunnel's entries stay, or a tunnel
// that nobody wants. Without what only makes a link, nothing is sent, and a task's
// own port knows nobody.
func Lags(op Op) (path string, lags bool) {
	where, _, _ := at(op)
	switch o := op.(type) {
	case DelNamespace:
		return o.Path, true
	case SetForward, DelForward, SetStatic, DelStatic, SetNeighbor, DelNeighbor, SetLink, DelLink:
		return where.namespace, tunnelLink.MatchString(where.link)
	}
	return "", false
}

// at is what an operation is about: a link, or with an empty name the namespace
// itself. A veth pair is about both its ends.
func at(op Op) (where, peer place, both bool) {
	switch o := op.(type) {
	case AddNamespace:
		return place{o.Path, ""}, peer, false
	case DelNamespace:
		return place{o.Path, ""}, peer, false
	case SetSysctl:
		return place{o.Namespace, ""}, peer, false
	case SetRule:
		return place{o.Namespace, ""}, peer, false
	case DelRule:
		return place{o.Namespace, ""}, peer, false
	case AddBridge:
		return place{o.Namespace, o.Name}, peer, false
	case AddVXLAN:
		return place{o.Namespace, o.Name}, peer, false
	case AddVeth:
		return place{o.Namespace, o.Name}, place{o.PeerNamespace, o.PeerName}, true
	case SetLink:
		return place{o.Namespace, o.Name}, place{o.Namespace, o.Master}, o.Master != ""
	case SetSoftwareChecksums:
		return place{o.Namespace, o.Name}, peer, false
	case SetPort:
		return place{o.Namespace, o.Name}, peer, false
	case DelLink:
		return place{o.Namespace, o.Name}, peer, false
	}
	return entryAt(op), peer, false
}

// entryAt is at for what links carry.
func entryAt(op Op) place {
	switch o := op.(type) {
	case SetAddr:
		return place{o.Namespace, o.Link}
	case DelAddr:
		return place{o.Namespace, o.Link}
	case SetRoute:
		return place{o.Namespace, o.Link}
	case DelRoute:
		return place{o.Namespace, o.Link}
	case SetForward:
		return place{o.Namespace, o.Link}
	case DelForward:
		return place{o.Namespace, o.Link}
	case SetStatic:
		return place{o.Namespace, o.Link}
	case DelStatic:
		return place{o.Namespace, o.Link}
	case SetNeighbor:
		return place{o.Namespace, o.Link}
	case DelNeighbor:
		return place{o.Namespace, o.Link}
	}
	return place{}
}

// Failed remembers which operations of a plan could not be carried out, so that
// those that build on them are left alone while all others go on: trouble with
// one network or task keeps no other from being put right.
type Failed struct {
	places map[place]bool
	errs   []error
}

// Add notes an operation that failed.
func (f *Failed) Add(op Op, err error) {
	if f.places == nil {
		f.places = map[place]bool{}
	}
	f.errs = append(f.errs, &OpError{op, err})
	switch op.(type) {
	case AddNamespace, AddBridge, AddVXLAN, AddVeth, SetLink:
		where, peer, both := at(op)
		f.places[where] = true
		if _, veth := op.(AddVeth); veth && both {
			f.places[peer] = true
		}
	}
}

// Blocks says whether an operation builds on one that failed.
func (f *Failed) Blocks(op Op) bool {
	if len(f.places) == 0 {
		return false
	}
	where, peer, both := at(op)
	lost := func(p place) bool { return f.places[p] || f.places[place{p.namespace, ""}] }
	return lost(where) || both && lost(peer)
}

// Errs are the failures, each an *OpError.
func (f *Failed) Errs() []error { return f.errs }
