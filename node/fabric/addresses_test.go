package fabric

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"shoal/node/plan"
)

func TestAddressesOutliveARestart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gateway.json")
	a, err := loadAddresses(path)
	if err != nil {
		t.Fatal(err)
	}
	one, err := a.take("t1")
	if err != nil || one.String() != "172.18.0.2/16" {
		t.Fatal(one, err)
	}
	if a, err = loadAddresses(path); err != nil {
		t.Fatal(err)
	}
	if again, err := a.take("t1"); err != nil || again != one {
		t.Errorf("after a restart %v, %v", again, err)
	}
	if err := a.free("t1"); err != nil {
		t.Fatal(err)
	}
	if other, err := a.take("t2"); err != nil || other == one {
		t.Errorf("a freed address was given at once: %v, %v", other, err)
	}
}

func TestAddressesEnd(t *testing.T) {
	a := &addresses{path: filepath.Join(t.TempDir(), "gateway.json"), Taken: map[string]netip.Addr{}}
	a.Next = netip.MustParseAddr("172.18.255.254")
	for _, want := range []string{"172.18.255.254/16", "172.18.0.2/16"} { // the last one is the broadcast address
		if got, err := a.take(want); err != nil || got.String() != want {
			t.Errorf("got %v, %v, want %s", got, err, want)
		}
	}
	for addr := plan.GatewayPrefix.Addr().Next(); plan.GatewayPrefix.Contains(addr); addr = addr.Next() {
		a.Taken[addr.String()] = addr
	}
	if got, err := a.take("one more"); err == nil {
		t.Errorf("got %v although all are taken", got)
	}
}

func TestAddressesDiffer(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a := &addresses{path: filepath.Join(t.TempDir(), "gateway.json"), Taken: map[string]netip.Addr{}}
		for range 20 {
			id := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(rt, "task")
			if rapid.Bool().Draw(rt, "free") {
				if err := a.free(id); err != nil {
					rt.Fatal(err)
				}
				continue
			}
			if _, err := a.take(id); err != nil {
				rt.Fatal(err)
			}
		}
		seen := map[netip.Addr]bool{}
		for id, addr := range a.Taken {
			if seen[addr] || !plan.GatewayPrefix.Contains(addr) || addr == plan.GatewayPrefix.Addr() {
				rt.Fatalf("task %s has %s", id, addr)
			}
			seen[addr] = true
		}
	})
}

func FuzzLoadAddresses(f *testing.F) {
	f.Add([]byte(`{"Next":"172.18.0.3","Taken":{"t1":"172.18.0.2"}}`))
	f.Add([]byte(`{"Taken":null}`))
	f.Add([]byte(`{"Next":"fd00::1"}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "gateway.json")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := loadAddresses(path)
		if err != nil {
			return
		}
		if got, err := a.take("new"); err == nil && !plan.GatewayPrefix.Contains(got.Addr()) {
			t.Errorf("gave %s", got)
		}
	})
}
