package zone

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// drawModel makes networks with services that share names, aliases and hosts.
func drawModel(t *rapid.T, label string) Model {
	var m Model
	ids := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"n1", "n2", "n3"}), rapid.ID).Draw(t, label)
	for _, id := range ids {
		n := Network{ID: id, Name: rapid.SampledFrom([]string{"app", "back"}).Draw(t, "name")}
		for _, name := range slices.Sorted(slices.Values(rapid.SliceOfDistinct(rapid.SampledFrom([]string{"web", "db", "tasks.web", "x"}), rapid.ID).Draw(t, "services"))) {
			s := Service{Name: name, Aliases: rapid.SliceOfN(rapid.SampledFrom([]string{"web", "front", "tasks.db"}), 0, 2).Draw(t, "aliases")}
			if rapid.Bool().Draw(t, "vip") {
				s.VirtualIPs = drawAddrs(t)
			}
			for slot := range rapid.IntRange(0, 2).Draw(t, "tasks") {
				s.Tasks = append(s.Tasks, Task{
					Name: fmt.Sprint(name, ".", slot), FullName: fmt.Sprint(name, ".", slot, ".id"), Addrs: drawAddrs(t),
					Hostname: rapid.SampledFrom([]string{"", "web", "host"}).Draw(t, "host"), Draining: rapid.Bool().Draw(t, "drains"),
				})
			}
			n.Services = append(n.Services, s)
		}
		m.Networks = append(m.Networks, n)
	}
	return m
}

func drawAddrs(t *rapid.T) []netip.Addr {
	return rapid.SliceOfN(rapid.Map(rapid.IntRange(1, 4), func(i int) netip.Addr {
		if i%2 == 0 {
			return netip.AddrFrom16([16]byte{0xfd, 15: byte(i)})
		}
		return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
	}), 0, 3).Draw(t, "addrs")
}

// everything is all that a zone answers, as text.
func everything(z *Zone) map[string]string {
	out := map[string]string{"size": fmt.Sprint(z.Size())}
	for id, x := range z.networks {
		for name, a := range x.names {
			out[id+" "+name] = fmt.Sprint(a.V4(), a.V6())
		}
		for addr, name := range x.reverse {
			out[id+" "+addr.String()] = name
		}
		for name, t := range x.srv {
			out[id+" "+name] = fmt.Sprint(t)
		}
		out[id] = x.name
	}
	return out
}

func TestChangesMakeTheSameZone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		old, now := drawModel(t, "old"), drawModel(t, "new")
		before := Build(old)
		was := everything(before)
		after := before.With(Diff(old, now))
		if got, want := everything(after), everything(Build(now)); !maps.Equal(got, want) {
			t.Fatalf("got %v\nwant %v", got, want)
		}
		if !maps.Equal(was, everything(before)) {
			t.Fatal("the old zone changed")
		}
		if rest := Diff(after.Model(), now); len(rest) != 0 {
			t.Fatalf("%+v is left to change", rest)
		}
		if again := everything(Build(Model{}).With(Diff(Model{}, before.Model()))); !maps.Equal(again, was) {
			t.Fatalf("from nothing %v\nwant %v", again, was)
		}
	})
}

func TestDiffTellsWhatChanged(t *testing.T) {
	old, now := example(), example()
	now.Networks[0].Services = slices.Clone(now.Networks[0].Services)
	now.Networks[0].Services[0].VirtualIPs = addrs("10.0.1.99")
	now.Networks[0].Services = now.Networks[0].Services[:2]
	now.Networks[1].ID = "n9"
	want := []Change{
		{ID: "n1", Name: "App", Set: []Service{now.Networks[0].Services[0]}, Remove: []string{"empty"}},
		{ID: "n9", Name: "back", Whole: true, Set: now.Networks[1].Services},
		{ID: "n2", Gone: true},
	}
	if got := Diff(old, now); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if got := Diff(old, old); got != nil {
		t.Errorf("from itself: %+v", got)
	}
}
