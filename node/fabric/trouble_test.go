package fabric

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/overlay/vxlan"
)

func TestConcerns(t *testing.T) {
	refused := errors.New("refused")
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{refused, true},
		{in(refused, "/a"), true},
		{in(refused, "/b"), false},
		{in(refused), false},
		{fmt.Errorf("change the overlay: %w", errors.Join(&vxlan.OpError{Op: vxlan.AddBridge{Namespace: "/b", Name: "br0"}, Err: refused})), false},
		{fmt.Errorf("change the overlay: %w", errors.Join(&vxlan.OpError{Op: vxlan.AddVeth{Namespace: "/b", PeerNamespace: "/a"}, Err: refused})), true},
		{errors.Join(in(refused, "/b"), in(refused, "/c")), false},
		{errors.Join(in(refused, "/b"), fs.ErrInvalid), true},
	} {
		if got := concerns(tt.err, []string{"/a", ""}); got != tt.want {
			t.Errorf("%v concerns: %t, want %t", tt.err, got, tt.want)
		}
	}
}

// TestLastingTroubleElsewhereKeepsNoTaskFromStarting: one network that cannot be
// made is the trouble of its own tasks.
func TestLastingTroubleElsewhereKeepsNoTaskFromStarting(t *testing.T) {
	b := newBed(t)
	bad := &api.Network{VNI: 4098}
	bad.ID, bad.Spec.Name = "bad", "bad"
	b.networks = append(b.networks, bad)
	b.kernel.links.Refuse = func(op vxlan.Op) error {
		if o, ok := op.(vxlan.AddVXLAN); ok && strings.HasSuffix(o.Namespace, "net-bad") {
			return fs.ErrExist
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.Run(ctx)
	}()
	defer func() {
		cancel()
		<-ended
	}()
	unlucky := aTask("t1", "10.0.2.3/24")
	unlucky.NetworksAttachments[0].Network.ID = "bad"
	short, stop := context.WithTimeout(ctx, 200*time.Millisecond)
	defer stop()
	if _, err := b.Attach(short, unlucky); err == nil || !strings.Contains(err.Error(), "vx4098") {
		t.Errorf("the task on the network that cannot be made is attached: %v", err)
	}
	began := time.Now()
	for i := range 5 {
		long, stop := context.WithTimeout(ctx, 10*time.Second)
		_, err := b.Attach(long, aTask(fmt.Sprint("t", i+2), netip.AddrFrom4([4]byte{10, 0, 1, byte(i + 3)}).String()+"/24"))
		stop()
		if err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("tasks on other networks waited %s for what is not their trouble", took)
	}
	both := aTask("t9", "10.0.1.9/24")
	both.NetworksAttachments = append(both.NetworksAttachments, swarm.NetworkAttachment{Network: unlucky.NetworksAttachments[0].Network, Addresses: unlucky.NetworksAttachments[0].Addresses})
	short, stop = context.WithTimeout(ctx, 200*time.Millisecond)
	defer stop()
	if _, err := b.Attach(short, both); err == nil {
		t.Error("a task on both networks is attached")
	}
}
