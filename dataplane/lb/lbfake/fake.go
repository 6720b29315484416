// Package lbfake is a balancer without a kernel, for tests: an lb.Driver that
// keeps what it was told and refuses what a kernel refuses. It moves no packets.
package lbfake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"shoal/dataplane/lb"
)

// Driver is an lb.Driver in memory. Its methods may be called at the same time.
type Driver struct {
	// Unsupported lists the algorithms it refuses.
	Unsupported []lb.Algorithm
	// Refuse, if set, is asked before each operation; its error ends Apply there,
	// with the operations before it done, as a kernel without transactions does.
	Refuse func(lb.Op) error

	mu     sync.Mutex
	spaces map[string]lb.Desired
	ops    []lb.Op
}

// New returns a driver that supports every algorithm.
func New() *Driver { return &Driver{spaces: map[string]lb.Desired{}} }

// Name is "fake".
func (d *Driver) Name() string { return "fake" }

// Supports refuses what Unsupported lists and what no balancer knows.
func (d *Driver) Supports(a lb.Algorithm) error {
	if a != "" && !slices.Contains(lb.Algorithms, a) || slices.Contains(d.Unsupported, a) {
		return fmt.Errorf("fake cannot balance by %q: it was told not to", a)
	}
	return nil
}

// Read returns what the namespace balances.
func (d *Driver) Read(ctx context.Context, namespace string) (lb.Desired, error) {
	if err := ctx.Err(); err != nil {
		return lb.Desired{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.read(namespace)
}

func (d *Driver) read(namespace string) (lb.Desired, error) {
	have := d.spaces[namespace]
	have.Namespace = namespace
	return have.Canonical() // a copy
}

// Apply makes the namespace balance wish.
func (d *Driver) Apply(ctx context.Context, wish lb.Desired) (int, error) {
	wish, err := wish.Canonical()
	if err != nil {
		return 0, err
	}
	for _, s := range wish.Services {
		if err := d.Supports(s.Algorithm); err != nil {
			return 0, fmt.Errorf("balance %s: %w", s.Front, err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	have, err := d.read(wish.Namespace)
	if err != nil {
		return 0, err
	}
	ops := lb.Plan(wish, have)
	lb.Note(ctx, ops...)
	for i, op := range ops {
		if err := ctx.Err(); err != nil {
			return i, err
		}
		if err := d.do(wish.Namespace, op); err != nil {
			return i, err
		}
	}
	return len(ops), nil
}

func (d *Driver) do(namespace string, op lb.Op) error {
	if d.Refuse != nil {
		if err := d.Refuse(op); err != nil {
			return fmt.Errorf("%s: %w", op, err)
		}
	}
	have, err := d.read(namespace)
	if err != nil {
		return err
	}
	next, err := lb.After(have, []lb.Op{op})
	if err != nil {
		return err
	}
	d.spaces[namespace] = next
	d.ops = append(d.ops, op)
	return nil
}

// Do applies one operation behind the back of whoever drives the balancer.
func (d *Driver) Do(namespace string, op lb.Op) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.do(namespace, op)
}

// Flush forgets everything about a namespace, as a person at a shell would make it.
func (d *Driver) Flush(namespace string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.spaces, namespace)
}

// Ops returns all operations done so far, in order.
func (d *Driver) Ops() []lb.Op {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.ops)
}

// ErrRefused is for tests that want Refuse to fail.
var ErrRefused = errors.New("refused")
