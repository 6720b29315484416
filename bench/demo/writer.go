package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
)

const (
	// writePause is the time from one write's beginning to the next's.
	writePause = 10 * time.Millisecond
	// writeTimeout is how long a writer waits for an answer before it asks anew.
	writeTimeout = time.Second
	// maxWrites bounds what the ledger has to carry.
	maxWrites = 5000
)

// write is one acknowledged write.
type write struct {
	label        string
	began, ended time.Time
}

// writer adds labels to the ledger, one after the other, through one host.
type writer struct {
	host lab.Host

	mu       sync.Mutex
	acks     []write
	failures int
	first    error
}

// run writes until ctx ends.
func (w *writer) run(ctx context.Context) {
	pace := time.NewTicker(writePause)
	defer pace.Stop()
	for n := range maxWrites {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		label, began := fmt.Sprintf("w%d", n), time.Now()
		err := w.write(ctx, label)
		if ctx.Err() != nil {
			return
		}
		w.note(write{label: label, began: began, ended: time.Now()}, err)
	}
}

func (w *writer) note(one write, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err == nil {
		w.acks = append(w.acks, one)
		return
	}
	w.failures++
	if w.first == nil {
		w.first = err
	}
}

// write adds one label. After an error nobody knows whether it was added.
func (w *writer) write(ctx context.Context, label string) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	var now swarm.Service
	if err := w.host.Call(ctx, http.MethodGet, "/services/"+ledger, nil, &now); err != nil {
		return err
	}
	if now.Spec.Labels == nil {
		now.Spec.Labels = map[string]string{}
	}
	now.Spec.Labels[label] = ""
	path := fmt.Sprintf("/services/%s/update?version=%d", now.ID, now.Version.Index)
	return w.host.Call(ctx, http.MethodPost, path, now.Spec, nil)
}

// acknowledged are the writes acknowledged so far, in order.
func (w *writer) acknowledged() []write {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.acks)
}

// refused is how many writes were not acknowledged, and why the first was not.
func (w *writer) refused() (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.failures, w.first
}

// longestGap is the longest time between the ends of two writes of which the
// second ended after a time.
func longestGap(acks []write, after time.Time) time.Duration {
	var longest time.Duration
	for i := 1; i < len(acks); i++ {
		if acks[i].ended.After(after) {
			longest = max(longest, acks[i].ended.Sub(acks[i-1].ended))
		}
	}
	return longest
}
