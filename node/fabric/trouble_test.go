package fabric

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"slices"
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

func TestHeld(t *testing.T) {
	refused := errors.New("refused")
	wish := vxlan.Desired{
		Networks: []vxlan.Network{{ID: "front", Namespace: "/ns/net-front"}, {ID: "mesh", Namespace: "/ns/net-mesh", Balancer: &vxlan.Balancer{}}},
		Sandboxes: []vxlan.Sandbox{{Namespace: "/ns/task-1", Interfaces: []vxlan.Interface{
			{NetworkID: "front"}, {NetworkID: "mesh"}, {NetworkID: ""}}}},
	}
	op := func(op vxlan.Op) error {
		return fmt.Errorf("change the overlay: %w", errors.Join(&vxlan.OpError{Op: op, Err: refused}))
	}
	for _, tt := range []struct {
		name    string
		err     error
		want    []string
		unknown bool
	}{
		{"nothing", nil, nil, false},
		{"somewhere", refused, nil, true},
		{"a task's translation", untranslated(refused, "/ns/task-1"), nil, false},
		{"the node's translation", untranslated(refused, ""), []string{own}, false},
		{"a task's balancer", behind(refused, "/ns/task-1", sendsTo(wish, "/ns/task-1")...), []string{"front"}, false},
		{"the mesh's balancer", behind(refused, "/ns/net-mesh", sendsTo(wish, "/ns/net-mesh")...), []string{"mesh"}, false},
		{"a forwarding entry", op(vxlan.DelForward{Namespace: "/ns/net-front", Link: "vx4097"}), []string{"front"}, false},
		{"a network that cannot be made", op(vxlan.AddVXLAN{Namespace: "/ns/net-front", Name: "vx4097"}), nil, false},
		{"a task's leg", op(vxlan.AddVeth{Namespace: "/ns/net-front", Name: "sv0123456789ab", PeerNamespace: "/ns/task-1"}), nil, false},
		{"a network that nobody wants", op(vxlan.DelNamespace{Path: "/ns/net-old"}), []string{"net-old"}, false},
		{"two places and one unknown", errors.Join(op(vxlan.DelForward{Namespace: "/ns/net-front", Link: "vx4097"}), refused), []string{"front"}, true},
		{"what could not be read", errors.Join(unread(vxlan.Actual{Unread: map[string]error{"/ns/net-front": refused, "/ns/task-1": refused}}, wish)...), []string{"front"}, false},
	} {
		if got, known := held(tt.err, wish); known == tt.unknown || !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, known %t", tt.name, got, known)
		}
	}
}

// TestAPlaceThatStaysBroken: the end of another task still reaches all balancers at
// once, before anything else is looked at; and who watches is told of the place, with
// the reason, once.
func TestAPlaceThatStaysBroken(t *testing.T) {
	b := newBed(t)
	var log strings.Builder
	var told [][]string
	b.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	b.cfg.Troubles = func(messages []string) { told = append(told, messages) }
	b.record("t1", "10.0.1.3")
	b.record("t2", "10.0.1.4")
	b.record("t3", "10.0.1.5")
	b.kernel.refuse["balance task-t1"] = errors.New("no memory for chain 7")
	if err := b.attach(t, aTask("t1", "10.0.1.3/24"), aTask("t2", "10.0.1.4/24")); err == nil {
		t.Fatal("a task without a balancer is in order")
	}
	for range 5 {
		if err := b.step(t.Context()); err == nil {
			t.Fatal("the place is said to be right")
		}
	}
	if warned := strings.Count(log.String(), "level=WARN"); warned != 1 || !strings.Contains(log.String(), "task-t1") ||
		!strings.Contains(log.String(), "no memory for chain 7") {
		t.Errorf("%d warnings:\n%s", warned, log.String())
	}
	if len(told) != 1 || len(told[0]) != 1 || !strings.Contains(told[0][0], "task-t1 is not as it should be: balancer in") {
		t.Errorf("told %q", told)
	}
	b.kernel.taken()
	b.table.Remove("t3")
	if err := b.step(t.Context()); err == nil {
		t.Fatal("the place is said to be right")
	}
	if calls := b.kernel.taken(); len(calls) == 0 || calls[0] != "balance task-t2" {
		t.Errorf("the end of a task was followed by %q", calls)
	}
	have, err := b.kernel.balancer.Read(t.Context(), "/run/ns/task-t2")
	if err != nil || len(have.Services[0].Backends) != 2 {
		t.Errorf("the other task is balanced %+v, %v", have, err)
	}
	delete(b.kernel.refuse, "balance task-t1")
	if err := b.step(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(told) != 2 || len(told[1]) != 0 || !strings.Contains(log.String(), "right again") {
		t.Errorf("when it is over: told %q\n%s", told, log.String())
	}
}

// TestANamespaceThatCannotBeRead is the trouble of its network, and shows as drift.
func TestANamespaceThatCannotBeRead(t *testing.T) {
	b := newBed(t)
	b.record("t1", "10.0.1.3")
	if err := b.attach(t, aTask("t1", "10.0.1.3/24")); err != nil {
		t.Fatal(err)
	}
	back := &api.Network{VNI: 4098}
	back.ID, back.Spec.Name = "net1", "back"
	b.networks = append(b.networks, back)
	b.kernel.links.Unreadable["/run/ns/net-net0"] = fs.ErrPermission
	task := aTask("t2", "10.0.2.3/24")
	task.NetworksAttachments[0].Network.ID = "net1"
	if err := b.attach(t, task); !errors.Is(err, fs.ErrPermission) {
		t.Fatalf("the step says %v", err)
	}
	if !slices.Equal(b.held, []string{"net0"}) || !slices.Contains(b.kernel.links.Namespaces(), "/run/ns/net-net1") {
		t.Errorf("held back %q, there are %q", b.held, b.kernel.links.Namespaces())
	}
	drift, err := b.Drift(t.Context())
	if err != nil || len(drift) != 1 || !strings.Contains(drift[0], "/run/ns/net-net0") || !strings.Contains(drift[0], fs.ErrPermission.Error()) {
		t.Errorf("drift is %q, %v", drift, err)
	}
}

// TestTroubleDoesNotFlap: what could not be looked at or asked in a full step is tried
// with each step, and stays wrong until it is right.
func TestTroubleDoesNotFlap(t *testing.T) {
	wrong := errors.New("no route to the outside")
	for name, spoil := range map[string]func(b *bed) (mend func()){
		"the MTU": func(b *bed) func() {
			err := wrong
			b.cfg.MTUs = func() (int, int, error) { return 1500, 1500, err }
			return func() { err = nil }
		},
		"the name server": func(b *bed) func() {
			b.kernel.refuse["serve task-t1"] = wrong
			return func() { delete(b.kernel.refuse, "serve task-t1") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			if err := b.attach(t, aTask("t1", "10.0.1.3/24")); err != nil {
				t.Fatal(err)
			}
			mend := spoil(b)
			b.fullSync = time.Time{}
			for range 3 {
				if err := b.step(t.Context()); !errors.Is(err, wrong) {
					t.Errorf("the step says %v", err)
				}
			}
			if len(b.held) > 0 {
				t.Errorf("held back %q", b.held)
			}
			mend()
			if err := b.step(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestANewNamespaceIsFilled: what was known of a namespace does not hold for the one
// that takes its place.
func TestANewNamespaceIsFilled(t *testing.T) {
	b := newBed(t)
	b.record("t1", "10.0.1.3")
	if err := b.attach(t, aTask("t1", "10.0.1.3/24"), aTask("t2", "10.0.1.4/24")); err != nil {
		t.Fatal(err)
	}
	b.kernel.links.Vanish("/run/ns/task-t1")
	b.kernel.balancer.Flush("/run/ns/task-t1")
	delete(b.kernel.translations, "/run/ns/task-t1")
	if err := b.attach(t, aTask("t3", "10.0.1.5/24")); err != nil {
		t.Fatal(err)
	}
	if drift, err := b.Drift(t.Context()); err != nil || len(drift) > 0 {
		t.Errorf("drift is %q, %v", drift, err)
	}
}
