package store

import (
	"context"
	"errors"
	"strings"
	"testing"

	"shoal/control/api"
)

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func TestChanged(t *testing.T) {
	f := newFixture(t)
	any, nodes, both := f.Changed(), f.Changed(api.KindNode), f.Changed(api.KindNode, api.KindService)
	f.do(api.Delete(service("gone", "")))
	if closed(any) {
		t.Error("a commit that changes nothing woke a watcher")
	}
	f.do(api.Create(service("s1", "web")))
	if !closed(any) || closed(nodes) || !closed(both) {
		t.Error("the wrong watchers woke")
	}
	var snapshot strings.Builder
	if err := f.Save(&snapshot); err != nil {
		t.Fatal(err)
	}
	if err := f.Restore(strings.NewReader(snapshot.String())); err != nil {
		t.Fatal(err)
	}
	if !closed(nodes) {
		t.Error("a restore did not wake a watcher")
	}
}

func TestWaitIndex(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	done, gaveUp := make(chan error, 1), make(chan error, 1)
	go func() { done <- f.WaitIndex(t.Context(), 3) }()
	go func() { gaveUp <- f.WaitIndex(ctx, 4) }()
	cancel()
	if err := <-gaveUp; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	f.do()
	if err := f.try(api.UpdateAnyway(service("gone", "x"))); err == nil {
		t.Fatal("not refused")
	}
	if err := <-done; err != nil || f.View().Index() != 3 {
		t.Errorf("got %v at %d", err, f.View().Index())
	}
}

func TestSubscribe(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	changes := f.Subscribe(ctx, 4)
	f.do(api.Create(service("s1", "web")), api.Create(node("h1", "one", 0)))
	f.do(api.UpdateAnyway(service("s1", "web")))
	f.do(api.Delete(service("s1", "")))
	made, changed, gone := <-changes, <-changes, <-changes
	if len(made.Changes) != 2 || made.Index != 2 || made.Changes[0].Old != nil || made.Changes[1].Kind() != api.KindNode {
		t.Errorf("got %+v", made)
	}
	if changed.Changes[0].Old != made.Changes[0].New || gone.Changes[0].New != nil {
		t.Errorf("got %+v, %+v", changed, gone)
	}
	cancel()
	if b, ok := <-changes; ok {
		t.Errorf("after the end came %+v", b)
	}
}

func TestSlowSubscriberIsSentAway(t *testing.T) {
	f := newFixture(t)
	changes := f.Subscribe(t.Context(), 2)
	for range 3 {
		f.do(api.Create(node("h1", "one", 0)), api.Delete(node("h1", "", 0)))
	}
	<-changes
	<-changes
	if last := <-changes; !errors.Is(last.Lost, ErrSlow) {
		t.Errorf("got %+v", last)
	}
	if _, ok := <-changes; ok {
		t.Error("the channel is still open")
	}
	again := f.Subscribe(t.Context(), 2)
	if err := f.Restore(strings.NewReader("{\"Format\":1,\"Index\":9}\n{\"Objects\":0}\n")); err != nil {
		t.Fatal(err)
	}
	if last := <-again; !errors.Is(last.Lost, ErrReplaced) || f.View().Index() != 9 {
		t.Errorf("got %+v", last)
	}
}
