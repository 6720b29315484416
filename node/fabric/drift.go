package fabric

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"shoal/dataplane/lb"
	"shoal/node/plan"
	"shoal/overlay/vxlan"
)

// Part is one of the things that the fabric keeps right in the kernel.
type Part string

// The parts.
const (
	PartOverlay     Part = "overlay"     // links, addresses, routes, forwarding, settings
	PartTranslation Part = "translation" // published ports, redirects, masquerading, the way of replies
	PartBalancer    Part = "balancer"    // virtual IPs and the routing mesh
	PartVault       Part = "vault"       // the sockets of encrypted networks and their tunnels
)

// Repair is one difference that somebody else had made, and that was put right.
type Repair struct {
	At   time.Time
	Part Part
	// Namespace is the path of the namespace, "" for the node's own, and where the
	// text says it.
	Namespace string
	// Change is what was done about it, as in Drift.
	Change string
}

// repairsKept bounds the repairs that are remembered.
const repairsKept = 256

// repairs remembers the last ones, and counts all.
type repairs struct {
	mu    sync.Mutex
	last  []Repair // oldest first
	total map[Part]uint64
}

func (r *repairs) note(part Part, namespace, change string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.total == nil {
		r.total = map[Part]uint64{}
	}
	r.total[part]++
	if len(r.last) == repairsKept {
		r.last = slices.Delete(r.last, 0, 1)
	}
	r.last = append(r.last, Repair{time.Now(), part, namespace, change})
}

// Repairs returns the last repairs, newest first, and how many there were of each
// part since the start.
func (f *Fabric) Repairs() ([]Repair, map[Part]uint64) {
	f.healed.mu.Lock()
	defer f.healed.mu.Unlock()
	last := slices.Clone(f.healed.last)
	slices.Reverse(last)
	total := map[Part]uint64{PartOverlay: 0, PartTranslation: 0, PartBalancer: 0, PartVault: 0}
	for part, n := range f.healed.total {
		total[part] = n
	}
	return last, total
}

// noting remembers what is done under the context as repairs, if it is one.
func (f *Fabric) noting(ctx context.Context, part Part, namespace string, repair bool) context.Context {
	if !repair {
		return ctx
	}
	return lb.WithNotes(ctx, func(change string) { f.healed.note(part, namespace, change) })
}

// settled reports how long a change took, once the kernel has it.
func (f *Fabric) settled(since time.Duration) {
	if f.moved && f.cfg.Programmed != nil {
		f.cfg.Programmed(since)
	}
}

// Drift compares the kernel with the wish and says, in words, what differs: the
// command, or the change, that would put it right; and what it could not compare. It
// waits for a step that is under way.
func (f *Fabric) Drift(ctx context.Context) ([]string, error) {
	if err := f.pause(ctx); err != nil {
		return nil, err
	}
	defer f.stepping.Unlock()
	wish := f.Wish()
	actual, err := f.cfg.Overlay.Read(ctx, wish.Overlay)
	if err != nil {
		return nil, fmt.Errorf("read the overlay: %w", err)
	}
	out, err := f.vaultDrift(ctx, wish.Vault)
	if err != nil {
		return nil, err
	}
	for _, op := range vxlan.Plan(wish.Overlay, actual) {
		out = append(out, fmt.Sprint(op))
	}
	for _, err := range unread(actual, wish.Overlay) {
		out = append(out, err.Error())
	}
	return append(out, f.tablesDrift(ctx, wish)...), nil
}

// tablesDrift is Drift for translations and balancers.
func (f *Fabric) tablesDrift(ctx context.Context, wish plan.Output) (out []string) {
	for _, t := range wish.Translations {
		have, err := f.cfg.Translator.ReadTranslation(ctx, t.Namespace)
		if err != nil {
			out = append(out, fmt.Sprintf("read the translation in %s: %v", place(t.Namespace), err))
			continue
		}
		for _, text := range lb.TranslationDifferences(t, have) {
			out = append(out, place(t.Namespace)+": "+text)
		}
	}
	for _, d := range wish.Balancers {
		have, err := f.cfg.Balancer.Read(ctx, d.Namespace)
		if err != nil {
			out = append(out, fmt.Sprintf("read the balancer in %s: %v", place(d.Namespace), err))
			continue
		}
		for _, op := range lb.Plan(d, have) {
			out = append(out, fmt.Sprintf("%s: %v", place(d.Namespace), op))
		}
	}
	return out
}

// pausePoll is how often Drift looks whether the step has ended.
const pausePoll = 2 * time.Millisecond

// pause keeps steps from beginning until stepping is unlocked.
func (f *Fabric) pause(ctx context.Context) error {
	for !f.stepping.TryLock() {
		select {
		case <-time.After(pausePoll):
		case <-ctx.Done():
			return fmt.Errorf("wait for the step that is under way: %w", ctx.Err())
		}
	}
	return nil
}
