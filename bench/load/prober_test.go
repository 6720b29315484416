package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestProberTakesTurnsAndRemembers(t *testing.T) {
	good := &Route{Name: "good", Ask: func(context.Context) (string, error) { return "web.1", nil }}
	bad := &Route{Name: "bad", Ask: func(context.Context) (string, error) { return "", syscall.ECONNREFUSED }}
	p := New(time.Millisecond, good, bad)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { p.Run(ctx); close(ended) }()
	for end := time.Now().Add(10 * time.Second); len(p.Taken()) < 6; time.Sleep(pollPause) {
		if time.Now().After(end) {
			t.Fatalf("%d requests", len(p.Taken()))
		}
	}
	stop()
	<-ended
	failed := 0
	for _, s := range p.Taken() {
		if (s.Failed != "") != (s.Route == "bad") || (s.Task == "web.1") != (s.Route == "good") {
			t.Errorf("sample %+v", s)
		}
		if s.Failed != "" {
			failed++
		}
	}
	if all := len(p.Taken()); failed < all/2-1 || failed > all/2+1 {
		t.Errorf("%d of %d requests went along the bad route", failed, all)
	}
}

func TestRouteTurnedOffIsQuiet(t *testing.T) {
	release := make(chan struct{})
	slow := &Route{Name: "slow", Ask: func(context.Context) (string, error) { <-release; return "web.1", nil }}
	p := New(time.Millisecond, slow)
	ctx := t.Context()
	p.next(ctx, 0)
	go func() { close(release) }()
	if err := p.Use(ctx, "slow", false); err != nil {
		t.Fatal(err)
	}
	p.next(ctx, 1)
	p.requests.Wait()
	if n := len(p.Taken()); n != 1 {
		t.Errorf("%d requests, want the one that was in flight", n)
	}
	if err := p.Use(ctx, "slow", true); err != nil {
		t.Fatal(err)
	}
	p.next(ctx, 2)
	p.requests.Wait()
	if n := len(p.Taken()); n != 2 {
		t.Errorf("%d requests after the route is on again", n)
	}
}

func TestProberIsBounded(t *testing.T) {
	release := make(chan struct{})
	stuck := &Route{Name: "stuck", Ask: func(context.Context) (string, error) { <-release; return "", io.EOF }}
	p := New(time.Millisecond, stuck)
	for turn := range maxFlying + 5 {
		p.next(t.Context(), turn)
	}
	if p.heldBack != 5 || len(p.flying) != maxFlying {
		t.Errorf("%d held back, %d in flight", p.heldBack, len(p.flying))
	}
	if p.without(func(s Sample) bool { return s.Began.Before(time.Now().Add(time.Hour)) }) == nil {
		t.Error("nothing is said to be in flight")
	}
	close(release)
	p.requests.Wait()
	if err := p.Landed(t.Context(), time.Now()); err != nil {
		t.Error(err)
	}
}

func TestRequestCutOffByTheEndCountsForNothing(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	p := New(time.Millisecond, &Route{Name: "cut", Ask: func(ctx context.Context) (string, error) { <-ctx.Done(); return "", ctx.Err() }})
	p.next(ctx, 0)
	stop()
	p.requests.Wait()
	if n := len(p.Taken()); n != 0 {
		t.Errorf("%d requests", n)
	}
}

func TestAsker(t *testing.T) {
	answer, status := "task=web.3\nnode=h2\n", http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	address := server.Listener.Addr().String()
	task, err := Asker(address, nil)(t.Context())
	if task != "web.3" || err != nil {
		t.Errorf("task %q, %v", task, err)
	}
	answer = "node=h2\n"
	if _, err := Asker(address, nil)(t.Context()); err == nil {
		t.Error("an answer without a task is an answer")
	}
	status = http.StatusServiceUnavailable
	if _, err := Asker(address, nil)(t.Context()); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("status 503 gives %v", err)
	}
	server.Close()
	if _, err := Asker(address, nil)(t.Context()); reason(err) != "connection refused" {
		t.Errorf("a closed port gives %q", reason(err))
	}
}

func TestReason(t *testing.T) {
	for _, test := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{fmt.Errorf("dial: %w", syscall.ECONNREFUSED), "connection refused"},
		{&net.OpError{Op: "read", Err: syscall.ECONNRESET}, "connection reset"},
		{syscall.EHOSTUNREACH, "no route"},
		{io.ErrUnexpectedEOF, "closed without an answer"},
		{context.DeadlineExceeded, "no answer in time"},
		{errors.New("odd"), "odd"},
	} {
		if got := reason(test.err); got != test.want {
			t.Errorf("reason of %v is %q, want %q", test.err, got, test.want)
		}
	}
}
