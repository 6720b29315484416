package fabric

import (
	"context"
	"errors"
	"fmt"
	"reflect"

	"shoal/dns/zone"
	"shoal/node/plan"
	"shoal/node/resolver"
)

// Names is the tasks' name server.
type Names interface {
	// Serve makes it answer for a task in its namespace and returns the port on
	// 127.0.0.11. It stays the same while the namespace does; a repetition is free.
	Serve(ctx context.Context, t resolver.Task) (port uint16, err error)
	// Drop lets a task's namespace go; what does not exist is no error.
	Drop(ctx context.Context, taskID string) error
	// SetNames makes the model what tasks are told.
	SetNames(ctx context.Context, m zone.Model) error
}

// openNameServers makes sure that every task that the wish knows has its name
// server, and says whether any has another port than before. The overlay has been
// applied, so that these tasks' loopback links are up; those of tasks that came
// meanwhile are not.
func (f *Fabric) openNameServers(ctx context.Context, wired []plan.Local, full bool) (opened bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var errs []error
	for _, known := range wired {
		l := f.locals[known.Task.ID]
		if l == nil {
			continue // it went meanwhile
		}
		wish := f.nameServer(l)
		if !full && l.DNSPort != 0 && reflect.DeepEqual(l.asked, wish) {
			continue
		}
		port, err := f.cfg.Names.Serve(ctx, wish)
		if err != nil {
			l.asked = resolver.Task{} // it is asked again
			errs = append(errs, in(fmt.Errorf("name server of task %s: %w", l.Task.ID, err), l.Namespace))
			continue
		}
		opened = opened || port != l.DNSPort
		l.asked, l.DNSPort = wish, port
	}
	return opened, errors.Join(errs...)
}

// nameServer is how a task's questions are to be answered. A task without a leg
// on the gateway bridge must not reach the outside by way of its name server.
func (f *Fabric) nameServer(l *local) resolver.Task {
	wish := resolver.Task{ID: l.Task.ID, Namespace: l.Namespace}
	if f.cfg.Questions != nil {
		wish.Task = f.cfg.Questions(l.Task)
	}
	wish.Inside = wish.Inside || !l.Gateway.IsValid()
	for _, a := range l.Task.NetworksAttachments {
		wish.Networks = append(wish.Networks, a.Network.ID)
	}
	return wish
}

func (f *Fabric) applyNames(ctx context.Context, m zone.Model, full bool) error {
	same := f.known.zone != nil && reflect.DeepEqual(m, *f.known.zone)
	if !full && same {
		return nil
	}
	f.moved = f.moved || !same
	f.known.zone = nil
	if err := f.cfg.Names.SetNames(ctx, m); err != nil {
		return fmt.Errorf("names: %w", err)
	}
	f.known.zone = &m
	return nil
}
