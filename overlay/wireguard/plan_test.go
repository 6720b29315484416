package wireguard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const vault = "/run/ns/vault"

func key(n byte) Key { return Key{n} }

func private(n byte) Private { return Private{[32]byte{n}} }

func endpoint(host byte, epoch uint64) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, host}), Port(epoch))
}

func peer(host byte, epoch uint64, active bool) Peer {
	return Peer{Key: key(host*10 + byte(epoch)), Endpoint: endpoint(host, epoch), Addr: Addr(uint32(host)), Active: active}
}

func device(epoch uint64, peers ...Peer) Device {
	return Device{Name: DeviceName(epoch), Port: Port(epoch), Public: key(byte(epoch)), Private: private(byte(epoch)), Peers: peers}
}

func wish(devices ...Device) Desired {
	return Desired{Namespace: vault, Addr: Addr(1), MTU: 1440, Devices: devices}
}

// after is what the kernel has once the operations are applied. It refuses what
// the kernel refuses.
func after(t interface{ Fatalf(string, ...any) }, a Actual, ops []Op) Actual {
	a.Devices, a.Sysctls, a.Addrs = maps.Clone(a.Devices), maps.Clone(a.Sysctls), slices.Clone(a.Addrs)
	need := func(name string) State {
		d, ok := a.Devices[name]
		if !ok || !a.Exists {
			t.Fatalf("no device %s", name)
		}
		d.Peers = maps.Clone(d.Peers)
		return d
	}
	for _, op := range ops {
		switch o := op.(type) {
		case AddVault:
			a = Actual{Exists: true, Sysctls: map[string]string{}, Devices: map[string]State{}}
		case DelVault:
			a = Actual{}
		case SetSysctl:
			a.Sysctls[o.Key] = o.Value
		case SetLoopback:
			a.Loopback = true
		case SetAddr:
			a.Addrs = append(a.Addrs, o.Addr)
		case DelAddr:
			a.Addrs = slices.DeleteFunc(a.Addrs, func(x netip.Addr) bool { return x == o.Addr })
		case AddDevice:
			a.Devices[o.Name] = State{MTU: o.MTU, Peers: map[Key]PeerState{}}
		case SetDevice:
			a.Devices[o.Name] = need(o.Name).set(t, o, a.Devices)
		case SetPeer:
			d := need(o.Device)
			p := d.Peers[o.Key]
			if o.Endpoint.IsValid() {
				p.Endpoint = o.Endpoint
			}
			p.Keepalive = 0
			if o.Active {
				p.Keepalive = Keepalive
			}
			p.Allowed = []netip.Prefix{netip.PrefixFrom(o.Addr, 32)}
			d.Peers[o.Key] = p
			a.Devices[o.Device] = d
		case DelPeer:
			d := need(o.Device)
			delete(d.Peers, o.Key)
			a.Devices[o.Device] = d
		case DelLink:
			delete(a.Devices, o.Name)
			a.Others = slices.DeleteFunc(slices.Clone(a.Others), func(x string) bool { return x == o.Name })
			a.Routes = slices.DeleteFunc(slices.Clone(a.Routes), func(r Route) bool { return r.Device == o.Name })
		case SetRoute:
			if !need(o.Device).Up {
				t.Fatalf("a route through %s, which is down", o.Device)
			}
			a.Routes = append(slices.DeleteFunc(slices.Clone(a.Routes), func(r Route) bool { return r.Addr == o.Addr }), o.Route)
		case DelRoute:
			a.Routes = slices.DeleteFunc(slices.Clone(a.Routes), func(r Route) bool { return r == o.Route })
		default:
			t.Fatalf("unknown operation %T", op)
		}
	}
	return a
}

func (s State) set(t interface{ Fatalf(string, ...any) }, o SetDevice, all map[string]State) State {
	if o.Private != (Private{}) {
		s.Public = key(o.Private.bytes[0])
	}
	if o.Port != 0 {
		s.Port = o.Port
	}
	if o.MTU != 0 {
		s.MTU = o.MTU
	}
	s.Up = s.Up || o.Up
	for name, other := range all {
		if s.Up && name != o.Name && other.Up && other.Port == s.Port {
			t.Fatalf("port %d of %s is taken by %s", s.Port, o.Name, name)
		}
	}
	if s.Up && s.Public == (Key{}) {
		t.Fatalf("%s is up without a key", o.Name)
	}
	return s
}

func texts(ops []Op) (out []string) {
	for _, op := range ops {
		out = append(out, op.String())
	}
	return out
}

func TestANewVault(t *testing.T) {
	d := wish(device(7, peer(2, 7, true), peer(3, 7, false)))
	d.Routes = []Route{{Addr(2), "wg7"}}
	got := texts(Plan(d, Actual{}, vault))
	want := []string{
		"ip netns add /run/ns/vault",
		"sysctl -w net.ipv4.conf.all.rp_filter=0", "sysctl -w net.ipv4.conf.default.rp_filter=0", "sysctl -w net.ipv4.ip_forward=0",
		"ip link set lo up", "ip addr replace 169.254.0.1/32 dev lo",
		"ip link add wg7 mtu 1440 type wireguard",
		"wg set wg7 private-key (private key) && wg set wg7 listen-port 7948 && ip link set wg7 up",
		"wg set wg7 peer GwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= allowed-ips 169.254.0.2/32 endpoint 192.0.2.2:7948 persistent-keepalive 25",
		"wg set wg7 peer JQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= allowed-ips 169.254.0.3/32 endpoint 192.0.2.3:7948 persistent-keepalive off",
		"ip route replace 169.254.0.2 dev wg7",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n %s\nwant\n %s", strings.Join(got, "\n "), strings.Join(want, "\n "))
	}
}

func TestChangesOfAVault(t *testing.T) {
	old := wish(device(7, peer(2, 7, true)))
	old.Routes = []Route{{Addr(2), "wg7"}}
	made := after(t, Actual{}, Plan(old, Actual{}, vault))
	change := func(f func(*Actual)) Actual {
		a := after(t, made, nil)
		f(&a)
		return a
	}
	roam := func(live bool) Actual {
		return change(func(a *Actual) {
			p := a.Devices["wg7"].Peers[key(27)]
			p.Endpoint, p.Live = netip.MustParseAddrPort("198.51.100.9:40000"), live
			a.Devices["wg7"] = State{MTU: 1440, Up: true, Port: 7948, Public: key(7), Peers: map[Key]PeerState{key(27): p}}
		})
	}
	both := wish(device(7, peer(2, 7, true)), device(8, peer(2, 8, true)))
	both.Routes = old.Routes
	moved := both
	moved.Routes = []Route{{Addr(2), "wg8"}}
	turned := after(t, made, Plan(both, made, vault))
	next := wish(device(8, peer(2, 8, true)))
	next.Routes = moved.Routes
	late := wish(device(9, peer(2, 9, true)))
	tests := []struct {
		name string
		want Desired
		have Actual
		ops  []string
	}{
		{"nothing differs", old, made, nil},
		{"an epoch begins", both, made, []string{"ip link add wg8", "wg set wg8 private-key", "wg set wg8 peer"}},
		{"the peer was heard under it", moved, turned, []string{"ip route replace 169.254.0.2 dev wg8"}},
		{"the old epoch ends", next, after(t, turned, Plan(moved, turned, vault)), []string{"ip link del wg7"}},
		{"a whole epoch was missed: its port is free before it is taken", late, made,
			[]string{"ip link del wg7", "ip link add wg9", "wg set wg9 private-key", "wg set wg9 peer"}},
		{"a peer moved and is heard from there", old, roam(true), nil},
		{"a peer is not heard where it went", old, roam(false), []string{"wg set wg7 peer GwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= allowed-ips 169.254.0.2/32 endpoint 192.0.2.2:7948"}},
		{"a link that nobody wished for", old, change(func(a *Actual) { a.Others = []string{"eth0"} }), []string{"ip link del eth0"}},
		{"an address that nobody wished for", old, change(func(a *Actual) { a.Addrs = append(a.Addrs, Addr(9)) }), []string{"ip addr del 169.254.0.9"}},
		{"routes trampled", old, change(func(a *Actual) { a.Routes = []Route{{Addr(4), "wg7"}} }),
			[]string{"ip route replace 169.254.0.2 dev wg7", "ip route del 169.254.0.4 dev wg7"}},
		{"somebody took the device down", old, change(func(a *Actual) {
			d := a.Devices["wg7"]
			d.Up, a.Devices["wg7"] = false, State{MTU: d.MTU, Port: d.Port, Public: d.Public, Peers: d.Peers}
		}), []string{"ip link set wg7 up"}},
		{"no encrypted network is left", Desired{}, made, []string{"ip netns del /run/ns/vault"}},
		{"no vault is wanted or there", Desired{}, Actual{}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ops := Plan(tt.want, tt.have, vault)
			got := texts(ops)
			same := slices.EqualFunc(got, tt.ops, func(a, b string) bool { return strings.HasPrefix(a, b) })
			// A route vanishes with its device and is no operation of its own.
			if tt.name == "somebody took the device down" {
				same = slices.Contains(got, tt.ops[0])
			}
			if !same {
				t.Errorf("got\n %s\nwant\n %s", strings.Join(got, "\n "), strings.Join(tt.ops, "\n "))
			}
			if rest := Plan(tt.want, after(t, tt.have, ops), vault); len(rest) != 0 {
				t.Errorf("left to do: %v", texts(rest))
			}
		})
	}
}

// drawn is a wish as node/plan makes them: at most two epochs, one after the other.
func drawn(t *rapid.T, label string) Desired {
	epoch := rapid.Uint64Range(1, 5).Draw(t, label+" epoch")
	d := wish()
	for e := epoch; e <= epoch+uint64(rapid.IntRange(0, 1).Draw(t, label+" more")); e++ {
		var peers []Peer
		for host := byte(2); host < 6; host++ {
			if rapid.Bool().Draw(t, fmt.Sprintf("%s peer %d in %d", label, host, e)) {
				peers = append(peers, peer(host, e, rapid.Bool().Draw(t, "active")))
				if len(d.Routes) == 0 || d.Routes[len(d.Routes)-1].Addr != Addr(uint32(host)) {
					d.Routes = append(d.Routes, Route{Addr(uint32(host)), DeviceName(e)})
				}
			}
		}
		d.Devices = append(d.Devices, device(e, peers...))
	}
	seen := map[netip.Addr]bool{}
	d.Routes = slices.DeleteFunc(d.Routes, func(r Route) bool { known := seen[r.Addr]; seen[r.Addr] = true; return known })
	if rapid.IntRange(0, 9).Draw(t, label+" none") == 0 {
		return Desired{}
	}
	return d
}

func TestPlanConvergesFromAnywhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		one, two := drawn(t, "one"), drawn(t, "two")
		a := after(t, Actual{}, Plan(one, Actual{}, vault))
		ops := Plan(two, a, vault)
		b := after(t, a, ops)
		if rest := Plan(two, b, vault); len(rest) != 0 {
			t.Fatalf("after\n %v\nleft to do\n %v", texts(ops), texts(rest))
		}
		if again := Plan(one, a, vault); len(again) != 0 {
			t.Fatalf("repeating is not free: %v", texts(again))
		}
	})
}

func TestPrivateKeysAreNotPrinted(t *testing.T) {
	p, err := NewPrivate(bytes.NewReader(bytes.Repeat([]byte("secret: do not tell anybody"), 3)))
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("device", "key", p, "device", Device{Private: p})
	raw, err := json.Marshal(map[string]any{"key": p, "device": Device{Private: p}})
	if err != nil {
		t.Fatal(err)
	}
	all := log.String() + string(raw) + fmt.Sprintf("%v %+v %#v %s %x %d %q", p, Device{Private: p}, Device{Private: p}, p, p, p, p) +
		fmt.Sprint(SetDevice{Name: "wg1", Private: p}, []Op{SetDevice{Name: "wg1", Private: p}})
	for _, form := range []string{string(p.Reveal()), fmt.Sprintf("%x", p.Reveal()), fmt.Sprint(p.Reveal())} {
		if strings.Contains(all, form) {
			t.Errorf("the key is in %q", all)
		}
	}
	public, err := p.Public()
	if err != nil || public == (Key{}) || bytes.Equal(public[:], p.Reveal()) {
		t.Errorf("public key %s, %v", public, err)
	}
	var back Key
	if err := back.UnmarshalText([]byte(public.String())); err != nil || back != public {
		t.Errorf("%s reads as %s, %v", public, back, err)
	}
}

func TestNumbers(t *testing.T) {
	for number, want := range map[uint32]string{1: "169.254.0.1", 256: "169.254.1.0", 16382: "169.254.63.254"} {
		if got := Addr(number).String(); got != want {
			t.Errorf("node %d is at %s, want %s", number, got, want)
		}
	}
	if Overhead(netip.MustParseAddr("192.0.2.1")) != 60 || Overhead(netip.MustParseAddr("2001:db8::1")) != 80 {
		t.Error("the overhead is wrong")
	}
	if Port(7) == Port(8) || Port(7) != Port(9) {
		t.Error("two epochs that count at once need two ports, and always the same two")
	}
}
