package lb

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// Either balances each namespace by one of two drivers: by the first, unless that
// cannot do an algorithm which is asked for there. A namespace that the second
// balances, also one that an earlier process left like that, stays with it while it
// has services: its flows are translated by what the second knows of them.
//
// Its methods may be called at the same time for different namespaces; calls for one
// are serialised.
type Either struct {
	first, second Driver

	mu     sync.Mutex
	spaces map[string]*space
}

// space is what is known of one namespace.
type space struct {
	mu     sync.Mutex
	known  bool // by whom it is balanced
	second bool
	sole   bool // the other driver has nothing there
}

// spacesMax bounds the namespaces that are remembered: nobody tells which are gone. One
// that is forgotten is looked at again.
const spacesMax = 4096

// NewEither prefers first.
func NewEither(first, second Driver) *Either {
	return &Either{first: first, second: second, spaces: map[string]*space{}}
}

// Name is the first driver's: it balances wherever nothing special is asked for.
func (e *Either) Name() string { return e.first.Name() }

// NameIn is that of the driver which balances a namespace.
func (e *Either) NameIn(namespace string) string {
	s := e.space(namespace)
	s.mu.Lock()
	defer s.mu.Unlock()
	return e.driver(s).Name()
}

// NameIn is the name of the driver that balances a namespace.
func NameIn(d Driver, namespace string) string {
	if e, ok := d.(*Either); ok {
		return e.NameIn(namespace)
	}
	return d.Name()
}

// Supports returns nil for what one of the two can do.
func (e *Either) Supports(a Algorithm) error {
	err := e.first.Supports(a)
	if err == nil {
		return nil
	}
	if other := e.second.Supports(a); other != nil {
		return errors.Join(err, other)
	}
	return nil
}

// Read returns what the namespace balances.
func (e *Either) Read(ctx context.Context, namespace string) (Desired, error) {
	s := e.space(namespace)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := e.find(ctx, s, namespace); err != nil {
		return Desired{}, err
	}
	return e.driver(s).Read(ctx, namespace)
}

// Apply makes the namespace balance d. Where another driver takes it over, that one
// balances before the other stops.
func (e *Either) Apply(ctx context.Context, d Desired) (changed int, err error) {
	s := e.space(d.Namespace)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := e.find(ctx, s, d.Namespace); err != nil {
		return 0, err
	}
	if needed := e.needsSecond(d); needed && !s.second {
		s.second, s.sole = true, false
	}
	if changed, err = e.driver(s).Apply(ctx, d); err != nil || s.sole {
		return changed, e.settle(s, d, err)
	}
	other := e.first
	if !s.second {
		other = e.second
	}
	more, err := other.Apply(HandingOver(ctx), Desired{Namespace: d.Namespace})
	s.sole = err == nil
	return changed + more, e.settle(s, d, err)
}

// settle lets a namespace without services be chosen for anew.
func (e *Either) settle(s *space, d Desired, err error) error {
	if err == nil && s.second && len(d.Services) == 0 {
		s.second, s.sole = false, false
	}
	return err
}

// needsSecond says whether only the second driver can do all of it.
func (e *Either) needsSecond(d Desired) bool {
	return slices.ContainsFunc(d.Services, func(s Service) bool {
		return e.first.Supports(s.Algorithm) != nil && e.second.Supports(s.Algorithm) == nil
	})
}

func (e *Either) driver(s *space) Driver {
	if s.second {
		return e.second
	}
	return e.first
}

// find looks once who balances a namespace.
func (e *Either) find(ctx context.Context, s *space, namespace string) error {
	if s.known {
		return nil
	}
	have, err := e.second.Read(ctx, namespace)
	if err != nil {
		return err
	}
	s.known, s.second = true, len(have.Services) > 0
	s.sole = !s.second
	return nil
}

func (e *Either) space(namespace string) *space {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.spaces[namespace]
	if s == nil {
		if len(e.spaces) >= spacesMax {
			clear(e.spaces)
		}
		s = &space{}
		e.spaces[namespace] = s
	}
	return s
}
