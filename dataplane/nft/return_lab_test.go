//go:build lab

package nft_test

import (
	"context"
	"net/netip"
	"reflect"
	"testing"

	"shoal/bench/need"
	"shoal/dataplane/lb"
	"shoal/dataplane/nft"
)

// TestLabReturnPath: a return path is read back as it was wished, costs nothing
// when repeated, heals when a part of it is gone, and goes without a trace.
func TestLabReturnPath(t *testing.T) {
	need.Feature(t, "nft", nft.Probe(context.Background()))
	need.Feature(t, "nft-egress", nft.ProbeReturn(context.Background()))
	ns := room(t, "return")
	run(t, ns, "ip link add eth0 type veth peer name eth1")
	d, ctx := nft.New(), context.Background()
	translate := func(r *lb.ReturnPath) int {
		t.Helper()
		n, err := d.Translate(ctx, lb.Translation{Namespace: ns, Return: r})
		if err != nil {
			t.Fatal(err)
		}
		have, err := d.ReadTranslation(ctx, ns)
		if err != nil || !reflect.DeepEqual(have.Return, r) {
			t.Fatalf("read %+v, %v; want %+v", have.Return, err, r)
		}
		return n
	}
	wish := &lb.ReturnPath{Interface: "eth0", Neighbors: [4]byte{2, 0x42, 0xa9, 0xfe}, Mark: 0x50ea0000,
		Datagrams: []netip.Addr{netip.MustParseAddr("172.18.0.2"), netip.MustParseAddr("fd53:686f:616c:1::ac12:2")},
		Direct: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("169.254.64.0/18"),
			netip.MustParsePrefix("fd11:2233:4455::/64"), netip.MustParsePrefix("fd53:686f:616c:2::/64")}}
	steps := []struct {
		name    string
		trample string
		wish    *lb.ReturnPath
		want    int
	}{
		{"nothing", "", nil, 0},
		{"made", "", wish, 1},
		{"again", "", wish, 0},
		{"no inet table", "nft delete table inet shoal_return", wish, 1},
		{"no netdev table", "nft delete table netdev shoal_return", wish, 1},
		{"no zones", "nft flush chain inet shoal_return zone", wish, 1},
		{"no marks", "nft flush chain inet shoal_return reply", wish, 1},
		{"no addressing", "nft flush chain netdev shoal_return address", wish, 1},
		{"one chain more", "nft add chain inet shoal_return more", wish, 1},
		{"IPv4 alone has a way out", "", &lb.ReturnPath{Interface: "eth0", Neighbors: wish.Neighbors, Mark: wish.Mark, Datagrams: wish.Datagrams[:1], Direct: wish.Direct}, 1},
		{"no jump", "nft flush chain inet shoal_return enter", wish, 1},
		{"another link", "", &lb.ReturnPath{Interface: "eth1", Neighbors: wish.Neighbors, Mark: wish.Mark}, 1},
		{"gone", "", nil, 1},
		{"still gone", "", nil, 0},
	}
	for _, s := range steps {
		if s.trample != "" {
			run(t, ns, s.trample)
		}
		if n := translate(s.wish); n != s.want {
			t.Errorf("%s: %d objects changed, want %d", s.name, n, s.want)
		}
	}
}

func TestReturnPathRefused(t *testing.T) {
	for name, r := range map[string]lb.ReturnPath{
		"no link":     {Mark: 0x10000},
		"no mark":     {Interface: "eth0"},
		"low mark":    {Interface: "eth0", Mark: 0x10001},
		"no prefix":   {Interface: "eth0", Mark: 0x10000, Direct: []netip.Prefix{{}}},
		"two sockets": {Interface: "eth0", Mark: 0x10000, Datagrams: []netip.Addr{netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")}},
	} {
		if _, err := nft.New().Translate(context.Background(), lb.Translation{Namespace: "/nonexistent", Return: &r}); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}
