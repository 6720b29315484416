package fabric

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"shoal/control/api"
	"shoal/dataplane/lb"
	"shoal/node/plan"
	"shoal/overlay/endpoint"
)

// step makes the network what the newest records and assignments ask for. What
// did not change since it was made true is left alone, but from time to time
// everything is compared with the kernel. Trouble in one place keeps neither the
// others from being put right nor the node from saying so: the place is tried again
// with the next step, and what it may not follow is held back, and nothing else.
func (f *Fabric) step(ctx context.Context) error {
	f.stepping.Lock()
	defer f.stepping.Unlock()
	view, revision := f.cfg.View(), uint64(0)
	if f.cfg.Revision != nil {
		revision = f.cfg.Revision()
	}
	full := f.fullSync.IsZero() || time.Since(f.fullSync) >= f.cfg.Resync
	f.heard, f.moved = nil, false
	if full {
		f.listen(ctx)
	}
	selfErr := f.findAddrs(full || f.unmeasured)
	if full || f.unmeasured {
		selfErr = errors.Join(selfErr, f.measure())
	}
	f.unmeasured = selfErr != nil
	wired := f.Locals()
	out := f.compile(view)

	f.withdraw(ctx, out.Balancers)
	overlayErr := f.applyLinks(ctx, out, full)
	opened, serversErr := f.openNameServers(ctx, wired, full)
	if opened { // the links stay those that were made: a task may have come meanwhile
		links := out
		out = f.compile(view)
		out.Overlay, out.Vault = links.Overlay, links.Vault
	}
	tablesErr := f.applyTables(ctx, out, full)
	namesErr := f.applyNames(ctx, out.Zone, full)
	f.known.keep(out)
	if full {
		f.fullSync = time.Now()
	}
	err := errors.Join(selfErr, overlayErr, serversErr, tablesErr, namesErr)
	if ctx.Err() == nil { // what was not tried any more has said nothing
		if networks, known := held(err, out.Overlay); known {
			f.tell(view, revision, networks)
		}
		f.notice(err)
	}
	return err
}

// tell says that the kernel follows the view, and what the managers asked for, but for
// some networks.
func (f *Fabric) tell(view *endpoint.View, revision uint64, held []string) {
	if f.cfg.Applied != nil {
		f.cfg.Applied(view, held...)
	}
	if f.cfg.Reached != nil {
		f.cfg.Reached(revision, held...)
	}
}

// measure follows the MTUs of the machine's own links and how its bridges filter.
// While they are not known, what was known last goes on.
func (f *Fabric) measure() error {
	return errors.Join(f.measureMTUs(), f.measureBridges())
}

func (f *Fabric) measureBridges() error {
	if f.cfg.BridgesFiltered == nil {
		return nil
	}
	filtered, err := f.cfg.BridgesFiltered()
	if err != nil {
		return in(err)
	}
	f.mu.Lock()
	f.cfg.Self.BridgesFiltered = filtered
	f.mu.Unlock()
	return nil
}

func (f *Fabric) measureMTUs() error {
	if f.cfg.MTUs == nil {
		return nil
	}
	path, egress, err := f.cfg.MTUs()
	if err != nil {
		return in(fmt.Errorf("find the MTU of the data path: %w", err)) // the last one goes on
	}
	f.mu.Lock()
	f.cfg.Self.MTU, f.cfg.Self.GatewayMTU = path, egress
	f.mu.Unlock()
	return nil
}

// findAddrs reads the node's own addresses where some port asks for them: at the
// first such port, and then with all else that is read from time to time.
func (f *Fabric) findAddrs(full bool) error {
	if f.cfg.Addrs == nil || !full && f.cfg.Self.Addrs != nil || !f.publishesAtPlaces() {
		return nil
	}
	addrs, err := f.cfg.Addrs()
	if err != nil {
		return behind(fmt.Errorf("find the addresses to publish ports at: %w", err), "", own)
	}
	f.mu.Lock()
	f.cfg.Self.Addrs = addrs
	f.mu.Unlock()
	return nil
}

func (f *Fabric) publishesAtPlaces() bool {
	asks := func(labels map[string]string) bool {
		for label := range labels {
			if strings.HasPrefix(label, api.LabelPublish) {
				return true
			}
		}
		return false
	}
	_, services, _ := f.cfg.Assigned()
	if slices.ContainsFunc(services, func(s *api.Service) bool { return asks(s.Spec.Labels) }) {
		return true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.locals {
		if asks(l.Task.ServiceLabels) {
			return true
		}
	}
	return false
}

// compile makes the wish out of what is known now.
func (f *Fabric) compile(view *endpoint.View) plan.Output {
	out := plan.Compile(f.input(view))
	findings := f.substitute(out.Balancers)
	if f.cfg.Findings != nil {
		f.cfg.Findings(findings)
	}
	f.current.Lock()
	f.current.out = out
	f.current.Unlock()
	return out
}

// substitute puts another algorithm in the place of one that this node's balancer
// cannot do, and says so. The managers refuse such a service, but a node may come
// later than a service: it must not keep the rest of the network from being put
// right.
func (f *Fabric) substitute(balancers []lb.Desired) (findings []string) {
	told := map[string]bool{}
	for _, d := range balancers {
		for i, s := range d.Services {
			why := f.cfg.Balancer.Supports(s.Algorithm)
			if why == nil {
				continue
			}
			d.Services[i].Algorithm = lb.RoundRobin
			if s.Algorithm == lb.WeightedLeastConn && f.cfg.Balancer.Supports(lb.WeightedRoundRobin) == nil {
				d.Services[i].Algorithm = lb.WeightedRoundRobin
			}
			text := fmt.Sprintf("service %s is balanced by %s: %v", s.Name, d.Services[i].Algorithm, why)
			if !told[text] {
				told[text] = true
				findings = append(findings, text)
			}
		}
	}
	return findings
}

// applyTables hands every namespace its translation and its balancer.
func (f *Fabric) applyTables(ctx context.Context, out plan.Output, full bool) error {
	var errs []error
	for _, t := range out.Translations {
		old, known := f.known.translations[t.Namespace]
		same := known && reflect.DeepEqual(t, old)
		f.moved = f.moved || !same
		if !full && same {
			continue
		}
		delete(f.known.translations, t.Namespace)
		if _, err := f.cfg.Translator.Translate(f.noting(ctx, PartTranslation, t.Namespace, full && same), t); err != nil {
			errs = append(errs, untranslated(err, t.Namespace))
			continue
		}
		f.known.translations[t.Namespace] = t
	}
	return errors.Join(append(errs, f.applyBalancers(ctx, out, full)...)...)
}

// untranslated says where a translation failed. A task's depends on no endpoint
// record; the node's has the ports that lead to its own tasks.
func untranslated(err error, namespace string) error {
	err = fmt.Errorf("translation in %s: %w", place(namespace), err)
	if namespace == "" {
		return behind(err, namespace, own)
	}
	return in(err, namespace)
}

func (f *Fabric) applyBalancers(ctx context.Context, out plan.Output, full bool) (errs []error) {
	lists := compared{}
	for _, d := range out.Balancers {
		old, known := f.known.balancers[d.Namespace]
		same := known && slices.Equal(d.MasqueradeFrom, old.MasqueradeFrom) && lists.equal(d.Services, old.Services)
		f.moved = f.moved || !same
		if !full && same {
			continue
		}
		delete(f.known.balancers, d.Namespace)
		if _, err := f.cfg.Balancer.Apply(f.noting(ctx, PartBalancer, d.Namespace, full && same), d); err != nil {
			err = fmt.Errorf("balancer in %s: %w", place(d.Namespace), err)
			errs = append(errs, behind(err, d.Namespace, sendsTo(out.Overlay, d.Namespace)...))
			continue
		}
		f.known.balancers[d.Namespace] = d
	}
	return errs
}

// compared remembers which lists of services are equal: many tasks share one.
type compared map[pair]bool

// pair is two lists of one length, by where they begin.
type pair struct {
	a, b   *lb.Service
	length int
}

func (c compared) equal(a, b []lb.Service) bool {
	if len(a) != len(b) || len(a) == 0 {
		return len(a) == len(b)
	}
	key := pair{&a[0], &b[0], len(a)}
	same, known := c[key]
	if !known {
		same = slices.EqualFunc(a, b, func(x, y lb.Service) bool {
			return x.Name == y.Name && x.Alike(y) && slices.Equal(x.Backends, y.Backends)
		})
		c[key] = same
	}
	return same
}

func place(namespace string) string {
	if namespace == "" {
		return "the node's own namespace"
	}
	return namespace
}
