package daemon

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"shoal/control/api"
	"shoal/control/dockerapi/wire"
	"shoal/control/orchestrate/keys"
	"shoal/node/fabric"
	"shoal/node/plan"
	"shoal/overlay/wglink"
	"shoal/overlay/wireguard"
)

// tunnels holds the node's keys for encrypted networks, one pair for each epoch
// that counts. The private halves are in the node's kernel and in one file that
// root alone can read; managers and other nodes are told the public halves.
type tunnels struct {
	path    string
	missing error // why the kernel cannot encrypt

	mu  sync.Mutex
	own []plan.OwnKey // the oldest epoch first
}

// storedKey is one pair on disk.
type storedKey struct {
	Epoch   uint64
	Private []byte
}

// loadTunnels takes up the keys of an earlier run.
func loadTunnels(path string, missing error) (*tunnels, error) {
	t := &tunnels{path: path, missing: missing}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	var stored []storedKey
	if err == nil {
		err = json.Unmarshal(raw, &stored)
	}
	for _, s := range stored {
		var own plan.OwnKey
		if own, err = pair(s.Epoch, s.Private); err != nil {
			break
		}
		t.own = append(t.own, own)
	}
	if err != nil {
		return nil, fmt.Errorf("keys of encrypted networks in %s (remove the file, and the node makes new ones): %w", path, err)
	}
	return t, nil
}

func pair(epoch uint64, raw []byte) (plan.OwnKey, error) {
	private, err := wireguard.PrivateOf(raw)
	if err != nil {
		return plan.OwnKey{}, err
	}
	public, err := private.Public()
	return plan.OwnKey{Epoch: epoch, Public: public, Private: private}, err
}

// follow makes the keys those of the epochs that count, and says whether that
// changed any. New ones are on disk before anybody hears of them.
func (t *tunnels) follow(e api.KeyEpochs) (changed bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.missing != nil || e.Current == 0 || e.Current-e.Floor > 1 {
		return false, nil
	}
	var own []plan.OwnKey
	for epoch := e.Floor; epoch <= e.Current; epoch++ {
		at := slices.IndexFunc(t.own, func(k plan.OwnKey) bool { return k.Epoch == epoch })
		if at >= 0 {
			own = append(own, t.own[at])
			continue
		}
		private, err := wireguard.NewPrivate(rand.Reader)
		if err != nil {
			return false, err
		}
		fresh, err := pair(epoch, private.Reveal())
		if err != nil {
			return false, err
		}
		own = append(own, fresh)
	}
	if slices.Equal(own, t.own) {
		return false, nil
	}
	if err := t.save(own); err != nil {
		return false, err
	}
	t.own = own
	return true, nil
}

// save replaces the file in one step.
func (t *tunnels) save(own []plan.OwnKey) error {
	var stored []storedKey
	for _, k := range own {
		stored = append(stored, storedKey{k.Epoch, k.Private.Reveal()})
	}
	raw, err := json.Marshal(stored)
	if err != nil {
		return err
	}
	tmp := filepath.Join(filepath.Dir(t.path), "."+filepath.Base(t.path)+".tmp")
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("keys of encrypted networks: %w", err)
	}
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(tmp, t.path)
	}
	if err != nil {
		return fmt.Errorf("keys of encrypted networks: %w", err)
	}
	return nil
}

// plan is what the network is planned with.
func (t *tunnels) plan() plan.Tunnels {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.missing != nil {
		return plan.Tunnels{Missing: t.missing.Error()}
	}
	return plan.Tunnels{Own: t.own}
}

// report is what the managers are told.
func (t *tunnels) report(settled uint64) api.Tunnel {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := api.Tunnel{Settled: settled}
	for _, k := range t.own {
		out.Keys = append(out.Keys, api.TunnelKey{Epoch: k.Epoch, Public: slices.Clone(k.Public[:])})
	}
	return out
}

// probeEncryption asks the kernel whether it can encrypt networks.
func (c *capabilities) probeEncryption(ctx context.Context) error {
	missing := wglink.Probe(ctx)
	if missing != nil {
		c.lack(api.MissingEncryption, missing)
		return missing
	}
	c.set(func(can *api.Capabilities) { can.Encryption = []string{api.WireGuard} })
	return nil
}

// describe adds what the managers must know of the node's gossip and tunnels. While the
// kernel refuses to make them, the node is one that cannot encrypt.
func (n *overlayMember) describe(r *api.NodeReport) {
	r.GossipStep = n.GossipStep()
	r.Tunnel = n.tunnels.report(n.Fabric().Wish().Settled)
	trouble := n.Fabric().Trouble()
	if trouble == nil || n.tunnels.missing != nil {
		return
	}
	missing := maps.Clone(r.Capabilities.Missing)
	if missing == nil {
		missing = map[string]string{}
	}
	missing[api.MissingEncryption] = trouble.Error()
	r.Capabilities.Encryption, r.Capabilities.Missing = nil, missing
}

// vault is the kernel's hold on the namespace of encrypted networks' sockets, nil
// where there can be none.
func (d *Daemon) vault(self plan.Self) fabric.Vault {
	if d.unsealed != nil {
		return nil
	}
	return &wglink.Kernel{Path: self.VaultPath()}
}

// rotate begins a new epoch of keys. It is refused while the last change is not over.
func (d *Daemon) rotate(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	st := d.store()
	if st == nil {
		return api.Errorf(api.Unavailable, "This node is not a swarm manager: ask one for new keys.")
	}
	view := st.View()
	cluster := view.Cluster()
	if cluster == nil || cluster.TunnelKeys.Current == 0 {
		return api.Errorf(api.Unavailable, "the leader has not begun to count keys yet: try again in a moment")
	}
	e := cluster.TunnelKeys
	if e.Changing() {
		text := "the change to the keys of epoch %d is not over yet"
		if waiting := keys.Waiting(view.Nodes(), e.Current); len(waiting) > 0 {
			text += ": " + strings.Join(waiting, ", ") + " still to send under them"
		}
		return api.Errorf(api.Conflict, text, e.Current)
	}
	next := cluster.Copy()
	next.TunnelKeys = keys.Next(e, time.Now().UTC())
	if err := d.Propose(r.Context(), []api.Op{api.Update(next)}); err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusOK, struct{ Epoch uint64 }{next.TunnelKeys.Current})
}
