package fabric

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"sync"

	"shoal/node/plan"
)

// addresses hands out the tasks' addresses on the gateway bridge. They are the
// node's own affair and kept in a file, so that a restart finds the tasks as
// they are wired. A freed address rests until all others had their turn.
type addresses struct {
	path string

	mu    sync.Mutex
	Next  netip.Addr
	Taken map[string]netip.Addr // by task id
}

func loadAddresses(path string) (*addresses, error) {
	a := &addresses{path: path, Taken: map[string]netip.Addr{}}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, a)
	}
	if err == nil {
		err = a.check()
	}
	if err != nil {
		return nil, fmt.Errorf("gateway addresses in %s: %w", path, err)
	}
	return a, nil
}

// check refuses what save cannot have written.
func (a *addresses) check() error {
	if a.Taken == nil {
		return errors.New("no list of tasks")
	}
	owners := make(map[netip.Addr]string, len(a.Taken))
	for id, addr := range a.Taken {
		if other, twice := owners[addr]; twice || !usable(addr) {
			return fmt.Errorf("address %s of task %s is not its own (%q)", addr, id, other)
		}
		owners[addr] = id
	}
	return nil
}

// usable says whether a task may have the address: not the bridge's own, not the
// network's, not the broadcast address.
func usable(addr netip.Addr) bool {
	return addr.IsValid() && plan.GatewayPrefix.Contains(addr) && plan.GatewayPrefix.Contains(addr.Next()) &&
		plan.GatewayPrefix.Addr().Less(addr)
}

// take returns the task's address, the same one every time until free.
func (a *addresses) take(taskID string) (netip.Prefix, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	bits := plan.GatewayPrefix.Bits()
	if addr, ok := a.Taken[taskID]; ok {
		return netip.PrefixFrom(addr, bits), nil
	}
	used := make(map[netip.Addr]bool, len(a.Taken))
	for _, addr := range a.Taken {
		used[addr] = true
	}
	addr, err := a.nextFree(used)
	if err != nil {
		return netip.Prefix{}, err
	}
	a.Taken[taskID], a.Next = addr, addr.Next()
	return netip.PrefixFrom(addr, bits), a.save()
}

func (a *addresses) nextFree(used map[netip.Addr]bool) (netip.Addr, error) {
	first := plan.GatewayPrefix.Addr().Next()
	addr := a.Next
	for range 1 << (32 - plan.GatewayPrefix.Bits()) {
		if !usable(addr) {
			addr = first
		}
		if !used[addr] {
			return addr, nil
		}
		addr = addr.Next()
	}
	return netip.Addr{}, fmt.Errorf("no address left on the gateway bridge (%s)", plan.GatewayPrefix.Masked())
}

func (a *addresses) free(taskID string) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := a.Taken[taskID]; !ok {
		return nil
	}
	delete(a.Taken, taskID)
	return a.save()
}

func (a *addresses) save() error {
	raw, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("gateway addresses: %w", err)
	}
	tmp := a.path + ".tmp"
	if err := os.WriteFile(tmp, raw, 0o600); err != nil {
		return fmt.Errorf("gateway addresses: %w", err)
	}
	return os.Rename(tmp, a.path)
}
