package fabric

import (
	"errors"
	"slices"

	"shoal/overlay/vxlan"
)

// trouble is what went wrong in some namespaces and nowhere else.
type trouble struct {
	namespaces []string
	err        error
}

func (t *trouble) Error() string { return t.err.Error() }

func (t *trouble) Unwrap() error { return t.err }

// in says that an error is about some namespaces only; none at all means that no
// task suffers from it.
func in(err error, namespaces ...string) error {
	if err == nil {
		return nil
	}
	return &trouble{namespaces, err}
}

// concerns says whether an error of a step is about one of the namespaces. What
// does not say where it happened is about all of them.
func concerns(err error, namespaces []string) bool {
	if err == nil {
		return false
	}
	some := func(at []string) bool {
		return slices.ContainsFunc(at, func(ns string) bool { return slices.Contains(namespaces, ns) })
	}
	switch e := err.(type) {
	case *trouble:
		return some(e.namespaces)
	case *vxlan.OpError:
		return some(vxlan.Touches(e.Op))
	case interface{ Unwrap() []error }:
		return slices.ContainsFunc(e.Unwrap(), func(err error) bool { return concerns(err, namespaces) })
	}
	if inner := errors.Unwrap(err); inner != nil {
		return concerns(inner, namespaces)
	}
	return true
}
