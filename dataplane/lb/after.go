package lb

import (
	"errors"
	"fmt"
	"slices"
)

// What a kernel answers to an operation that does not fit what it has.
var (
	ErrExists  = errors.New("exists already")
	ErrMissing = errors.New("does not exist")
)

// After returns what a kernel with the canonical state actual has once ops were
// applied, or the first refusal: adding what is there is ErrExists, changing or
// removing what is not there is ErrMissing. actual is not changed.
func After(actual Desired, ops []Op) (Desired, error) {
	out := actual
	out.Services = slices.Clone(actual.Services)
	for i := range out.Services {
		out.Services[i].Backends = slices.Clone(out.Services[i].Backends)
	}
	for _, op := range ops {
		if err := out.apply(op); err != nil {
			return Desired{}, fmt.Errorf("%s: %w", op, err)
		}
	}
	return out.Canonical()
}

func (d *Desired) apply(op Op) error {
	if op.Kind == SetMasquerade {
		d.MasqueradeFrom = op.From
		return nil
	}
	at := slices.IndexFunc(d.Services, func(s Service) bool { return s.Front == op.Service.Front })
	if op.Kind == AddService {
		if at >= 0 {
			return ErrExists
		}
		d.Services = append(d.Services, op.Service.bare())
		return nil
	}
	if at < 0 {
		return fmt.Errorf("service %w", ErrMissing)
	}
	switch op.Kind {
	case RemoveService:
		d.Services = slices.Delete(d.Services, at, at+1)
		return nil
	case SetService:
		kept := d.Services[at].Backends
		d.Services[at] = op.Service
		d.Services[at].Backends = kept
		return nil
	}
	return d.Services[at].apply(op)
}

func (s *Service) apply(op Op) error {
	at := slices.IndexFunc(s.Backends, func(b Backend) bool { return compareBackends(b, op.Backend) == 0 })
	switch {
	case op.Kind == AddBackend && at >= 0:
		return ErrExists
	case op.Kind == AddBackend:
		s.Backends = append(s.Backends, op.Backend)
	case at < 0:
		return ErrMissing
	case op.Kind == SetBackend:
		s.Backends[at] = op.Backend
	case op.Kind == RemoveBackend:
		s.Backends = slices.Delete(s.Backends, at, at+1)
	default:
		return fmt.Errorf("unknown operation %q", op.Kind)
	}
	return nil
}
