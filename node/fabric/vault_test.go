package fabric

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/node/plan"
	"shoal/overlay/wireguard"
)

// vault is one in memory, which notes what is asked of it among the other calls.
type vault struct {
	*kernel
	there bool
	wrong error
}

func (v *vault) Read(context.Context) (wireguard.Actual, error) {
	return wireguard.Actual{Exists: v.there}, nil
}

func (v *vault) Apply(_ context.Context, ops []wireguard.Op) error {
	defer v.lock()()
	switch ops[0].(type) {
	case wireguard.AddVault:
		v.calls = append(v.calls, "vault")
		v.there = v.wrong == nil
	case wireguard.DelVault:
		v.calls, v.there = append(v.calls, "no vault"), false
	}
	return v.wrong
}

// sealedBed is a fabric whose network is encrypted.
func sealedBed(t *testing.T, keys plan.Tunnels) (*bed, *vault, *api.Task) {
	b := newBed(t)
	v := &vault{kernel: b.kernel}
	b.cfg.Vault, b.cfg.Tunnels = v, func() plan.Tunnels { return keys }
	spec := &swarm.Driver{Options: map[string]string{api.EncryptedOption: ""}}
	b.networks[0].Spec.DriverConfiguration = spec
	task := aTask("t1", "10.0.1.3/24")
	task.NetworksAttachments[0].Network.Spec.DriverConfiguration = spec
	return b, v, task
}

var someKey = plan.Tunnels{Own: []plan.OwnKey{{Epoch: 1, Public: wireguard.Key{1}}}}

func TestTheVaultComesFirstAndGoesLast(t *testing.T) {
	b, _, task := sealedBed(t, someKey)
	if err := b.attach(t, task); err != nil {
		t.Fatal(err)
	}
	calls := b.kernel.taken()
	if at := slices.Index(calls, "vault"); at < 0 || at > slices.Index(calls, "wire") {
		t.Errorf("the step did %q", calls)
	}
	if err := b.awaitCarried(t.Context(), task); err != nil {
		t.Errorf("the task is refused: %v", err)
	}
	if err := b.Detach(t.Context(), task.ID); err != nil {
		t.Fatal(err)
	}
	if err := b.step(t.Context()); err != nil {
		t.Fatal(err)
	}
	calls = b.kernel.taken()
	if at := slices.Index(calls, "no vault"); at < 0 || at < slices.Index(calls, "wire") {
		t.Errorf("without the task the step did %q", calls)
	}
}

func TestATaskIsRefusedRatherThanHeardInTheClear(t *testing.T) {
	b, v, task := sealedBed(t, plan.Tunnels{Missing: "no WireGuard"})
	if err := b.attach(t, task); err != nil {
		t.Fatal(err)
	}
	err := b.awaitCarried(t.Context(), task)
	if err == nil || !strings.Contains(err.Error(), "network front is encrypted, and this node cannot encrypt: no WireGuard") {
		t.Errorf("the task is told %v", err)
	}
	if v.there || len(b.Wish().Overlay.Networks) != 0 {
		t.Errorf("the node carries %+v", b.Wish().Overlay.Networks)
	}
}

func TestTroubleWithTheVaultIsThatOfItsTasks(t *testing.T) {
	b, v, task := sealedBed(t, someKey)
	v.wrong = errors.New("UDP port 7947 is taken")
	if err := b.attach(t, task); err != nil {
		t.Errorf("the whole network is in trouble: %v", err)
	}
	if err := b.awaitCarried(t.Context(), task); !errors.Is(err, v.wrong) || !errors.Is(b.Trouble(), v.wrong) {
		t.Errorf("the task is told %v, the node %v", err, b.Trouble())
	}
	if err := b.awaitCarried(t.Context(), aTask("t2", "10.0.1.4/24")); err != nil {
		t.Errorf("another task is told %v", err)
	}
	v.wrong = nil
	b.fullSync = time.Time{}
	if err := b.step(t.Context()); err != nil || b.Trouble() != nil {
		t.Errorf("when it is over: %v, %v", err, b.Trouble())
	}
}
