package fabric

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

func onNetwork(id, name string) *api.Task {
	t := &api.Task{ServiceName: "agent"}
	t.ID = id
	t.NetworksAttachments = []swarm.NetworkAttachment{{Network: api.NodeNetwork(name).Network}}
	return t
}

// TestATaskInTheNodesOwnNetwork has no namespace, and nothing is wired for it.
func TestATaskInTheNodesOwnNetwork(t *testing.T) {
	b := newBed(t)
	b.networks = append(b.networks, api.NodeNetwork(api.NetworkHost))
	task := onNetwork("t1", api.NetworkHost)
	task.Ports = []swarm.PortConfig{{TargetPort: 80, PublishedPort: 80, PublishMode: swarm.PortConfigPublishModeHost}}
	if err := b.Adopt(task); err != nil {
		t.Fatal(err)
	}
	path, err := b.Attach(t.Context(), task) // does not wait for the loop, which does not run
	if path != "" || err != nil {
		t.Errorf("attached at %q, %v", path, err)
	}
	b.SetLive("t1", true)
	if err := b.step(t.Context()); err != nil {
		t.Fatal(err)
	}
	wish := b.Wish()
	if len(b.Locals())+len(wish.Overlay.Sandboxes)+len(wish.Overlay.Networks)+len(wish.Balancers) != 0 || wish.Overlay.Gateway != nil ||
		len(wish.Translations) != 1 || len(wish.Translations[0].Forwards) != 0 {
		t.Errorf("something is wished for: %+v", wish)
	}
	if err := b.Detach(t.Context(), "t1"); err != nil {
		t.Error(err)
	}
}

// TestAcceptsOnTheNode asks loopback and the node's own address.
func TestAcceptsOnTheNode(t *testing.T) {
	b := newBed(t)
	b.cfg.Self.VTEP = netip.MustParseAddr("127.0.0.2")
	task := onNetwork("t1", api.NetworkHost)
	for _, at := range []string{"127.0.0.1:0", "127.0.0.2:0", "0.0.0.0:0"} {
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp4", at)
		if err != nil {
			t.Fatal(err)
		}
		port := uint16(l.Addr().(*net.TCPAddr).Port)
		if !b.Accepts(t.Context(), task, []uint16{port}) {
			t.Errorf("what listens on %s does not accept", at)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if b.Accepts(t.Context(), task, []uint16{port}) {
			t.Errorf("what listened on %s accepts", at)
		}
	}
	if calls := b.kernel.taken(); slices.Contains(calls, "dial task-t1") {
		t.Errorf("looked into a namespace that is not there: %q", calls)
	}
}

// TestATaskWithoutNetwork has a namespace with the loopback link alone.
func TestATaskWithoutNetwork(t *testing.T) {
	b := newBed(t)
	if err := b.attach(t, onNetwork("t1", api.NetworkNone)); err != nil {
		t.Fatal(err)
	}
	wish := b.Wish().Overlay
	if len(wish.Sandboxes) != 1 || len(wish.Sandboxes[0].Interfaces)+len(wish.Sandboxes[0].Routes) != 0 || wish.Gateway != nil {
		t.Errorf("wired as %+v", wish)
	}
	if asked := b.names.tasks["t1"]; !asked.Inside {
		t.Errorf("its questions go outside: %+v", asked)
	}
}
