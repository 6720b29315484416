package alloc

import (
	"net/netip"
	"testing"

	"github.com/moby/moby/api/types/swarm"
	"pgregory.net/rapid"

	"shoal/control/api"
)

// ServicesByNetwork and TasksByNetwork make a world something to count in.
func (w *world) ServicesByNetwork(string) []*api.Service { return values(w.services) }
func (w *world) TasksByNetwork(string) (live []*api.Task) {
	for _, t := range w.tasks {
		if t.Alive() {
			live = append(live, t)
		}
	}
	return live
}

// TestUsageAddsUp: whatever happens, what is in use and what is free are the whole
// subnet, and what is free can be given.
func TestUsageAddsUp(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		w := newWorld()
		n := &api.Network{Reserved: map[string]netip.Addr{"router": netip.MustParseAddr("10.0.1.9")}}
		n.ID, n.Spec.Name = "app", "app"
		n.Spec.IPAMOptions = &swarm.IPAMOptions{Configs: []swarm.IPAMConfig{config("10.0.1.0/27")}}
		w.put(n)
		w.plan()
		w.service("s0", nil, "app")
		w.plan()
		for range rapid.IntRange(0, 40).Draw(r, "steps") {
			var ids []string
			for id := range w.tasks {
				ids = append(ids, id)
			}
			switch rapid.IntRange(0, 4).Draw(r, "step") {
			case 0, 1:
				w.task("s0")
			case 2:
				if len(ids) > 0 {
					w.end(ids[0])
				}
			case 3:
				w.release()
			case 4:
				w.removeService("s0")
				w.service("s0", nil, "app")
			}
			w.plan()
			u := UsageOf(w, w.networks["app"])[0]
			if u.InUse+u.Free != 32 {
				r.Fatalf("%d in use and %d free of 32", u.InUse, u.Free)
			}
			waits := 0
			for _, task := range w.tasks {
				for _, a := range task.NetworksAttachments {
					if a.Addresses[0].Addr().String() == "10.0.1.9" {
						r.Fatal("a reserved address was given")
					}
				}
				if task.Status.Err != "" {
					waits++
				}
			}
			if waits > 0 && u.Free != 0 {
				r.Fatalf("%d tasks wait although %d addresses are free", waits, u.Free)
			}
		}
	})
}

func TestUsageOfSubnets(t *testing.T) {
	with := func(c swarm.IPAMConfig, text string) swarm.IPAMConfig {
		c.Range = netip.MustParsePrefix(text)
		return c
	}
	for _, r := range []struct {
		config      swarm.IPAMConfig
		inUse, free uint64
		gateway     string
	}{
		{config("10.0.1.0/24"), 3, 253, "10.0.1.1"},
		{config("10.0.0.0/16"), 3, 65533, "10.0.0.1"},
		{with(config("10.0.0.0/16"), "10.0.3.0/28"), 3, 15, "10.0.3.0"},
		{with(config("10.0.1.0/24"), "10.0.1.0/25"), 3, 126, "10.0.1.1"},
		{config("fd00::/120"), 2, 254, "fd00::1"},
		{config("fd00::/64"), 2, 1<<64 - 2, "fd00::1"},
		{config("fd00::/48"), 2, 1<<64 - 1, "fd00::1"},
	} {
		n := &api.Network{}
		n.ID = "n"
		n.IPAMOptions = &swarm.IPAMOptions{Configs: []swarm.IPAMConfig{complete(r.config)}}
		u := UsageOf(newWorld(), n)[0]
		if u.InUse != r.inUse || u.Free != r.free || n.IPAMOptions.Configs[0].Gateway.String() != r.gateway {
			t.Errorf("%v: %d in use, %d free, gateway %s", r.config, u.InUse, u.Free, n.IPAMOptions.Configs[0].Gateway)
		}
	}
}
