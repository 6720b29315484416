package lb

import (
	"context"
	"slices"
	"sync"
)

// Either balances each namespace by one of two drivers: by the first, unless that
// cannot do an algorithm which is asked for there. A namespace that the second
// balances, also one that an earlier process left like that, stays with it while it
// has services: its flows are translated by what the second knows of them. So the
// second must be able to do whatever the first can.
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
	return e.driver(s.second).Name()
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
	if e.first.Supports(a) == nil {
		return nil
	}
	return e.second.Supports(a)
}

// Read returns what the namespace balances.
func (e *Either) Read(ctx context.Context, namespace string) (Desired, error) {
	s := e.space(namespace)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := e.find(ctx, s, namespace); err != nil {
		return Desired{}, err
	}
	return e.driver(s.second).Read(ctx, namespace)
}

// Apply makes the namespace balance d. Where another driver takes it over, that one
// balances before the other stops; one that fails to has not taken it over.
func (e *Either) Apply(ctx context.Context, d Desired) (changed int, err error) {
	s := e.space(d.Namespace)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := e.find(ctx, s, d.Namespace); err != nil {
		return 0, err
	}
	second := e.needsSecond(d) || s.second && len(d.Services) > 0
	s.sole = s.sole && second == s.second
	if changed, err = e.driver(second).Apply(ctx, d); err != nil {
		return changed, err
	}
	if s.second = second; s.sole {
		return changed, nil
	}
	more, err := e.driver(!second).Apply(HandingOver(ctx), Desired{Namespace: d.Namespace})
	s.sole = err == nil
	return changed + more, err
}

// needsSecond says whether the first driver cannot do all of it.
func (e *Either) needsSecond(d Desired) bool {
	return slices.ContainsFunc(d.Services, func(s Service) bool { return e.first.Supports(s.Algorithm) != nil })
}

func (e *Either) driver(second bool) Driver {
	if second {
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
	// Who balances is not alone yet: an earlier process may have left more than services.
	s.known, s.second = true, len(have.Services) > 0
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
