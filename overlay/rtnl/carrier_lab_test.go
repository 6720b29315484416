//go:build lab

package rtnl

import (
	"context"
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shoal/overlay/netns"
	"shoal/overlay/vxlan"
)

// TestNewLinksCarry: whoever is told that the network is there can use it at once.
// A first packet that is lost makes its sender wait for a second.
func TestNewLinksCarry(t *testing.T) {
	h := hosts(t, 1, 1500)[0]
	for round := range 40 {
		h.wish(1, 1, 0, 1450)
		h.balance(1, 1)
		ops := h.plan()
		if err := h.kernel.Apply(t.Context(), ops); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		conn, err := netns.Dial(ctx, h.host, "tcp", "169.254.128.2:80")
		cancel()
		if err == nil {
			conn.Close()
		}
		if !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("round %d: %v, want a refusal", round, err)
		}
		h.desired = vxlan.Desired{}
		h.converge()
	}
}
