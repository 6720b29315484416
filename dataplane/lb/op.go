package lb

import (
	"fmt"
	"net/netip"
	"strings"
)

// OpKind says what an Op does.
type OpKind string

// The kinds, in the order in which Plan puts them: a client never meets a front
// whose old backends went before its new ones came.
const (
	SetMasquerade OpKind = "set masquerade"
	AddService    OpKind = "add service"
	SetService    OpKind = "set service" // another algorithm, masquerading or stickiness
	AddBackend    OpKind = "add backend"
	SetBackend    OpKind = "set backend" // another weight, or draining
	RemoveBackend OpKind = "remove backend"
	RemoveService OpKind = "remove service"
)

// Op is one change of one object.
type Op struct {
	Kind OpKind
	// Service is the front, its name and how it balances; never its backends.
	Service Service
	// Backend is set for the three kinds that speak of one.
	Backend Backend
	// From is the new value of MasqueradeFrom, for SetMasquerade.
	From []netip.Prefix
}

// String is the line that a person reads in a list of drift.
func (o Op) String() string {
	name := ""
	if o.Service.Name != "" {
		name = " (" + o.Service.Name + ")"
	}
	switch o.Kind {
	case SetMasquerade:
		return fmt.Sprintf("%s %s", o.Kind, sources(o.From))
	case AddService, SetService:
		text := fmt.Sprintf("%s %s%s %s", o.Kind, o.Service.Front, name, o.Service.Algorithm)
		if o.Service.Masquerade {
			text += " masquerade"
		}
		if o.Service.Sticky > 0 {
			text += " sticky " + o.Service.Sticky.String()
		}
		return text
	case RemoveService:
		return fmt.Sprintf("%s %s%s", o.Kind, o.Service.Front, name)
	}
	task := ""
	if o.Backend.Task != "" {
		task = " (" + o.Backend.Task + ")"
	}
	return fmt.Sprintf("%s %s%s of %s%s", o.Kind, o.Backend, task, o.Service.Front, name)
}

// sources names prefixes, or "nobody".
func sources(from []netip.Prefix) string {
	if len(from) == 0 {
		return "nobody"
	}
	var out []string
	for _, p := range from {
		out = append(out, p.String())
	}
	return strings.Join(out, " ")
}
