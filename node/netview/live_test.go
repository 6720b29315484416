package netview

import (
	"net/netip"
	"strings"
	"testing"

	"shoal/dataplane/trace"
)

// plan is two ways from web.1 on h1 to a backend each.
func plannedWays() []trace.Path {
	way := func(at, dst string) trace.Path {
		return trace.Path{Verdict: trace.Delivered, At: at, Src: netip.MustParseAddr("10.0.1.3"), Dst: netip.MustParseAddrPort(dst),
			Hops: []trace.Hop{{Where: "h1/web.1"}, {Where: "h1/web.1"}, {Where: at}}}
	}
	return []trace.Path{way("h2/web.2", "10.0.1.4:80"), way("h3/web.3", "10.0.1.5:80")}
}

func seen(where, src, dst string) Sighting {
	node, _, _ := strings.Cut(where, "/")
	return Sighting{Node: node, Where: where, Src: netip.MustParseAddrPort(src), Dst: netip.MustParseAddrPort(dst)}
}

func TestCompare(t *testing.T) {
	const client, two, three = "10.0.1.3:4000", "10.0.1.4:80", "10.0.1.5:80"
	inner := seen("h2/web.2", client, two)
	inner.VNI = 4097
	refusal := []trace.Path{{Verdict: trace.Refused, At: "h1/web.1", Dst: netip.MustParseAddrPort("10.0.1.9:80"), Hops: []trace.Hop{{Where: "h1/web.1"}}}}
	for _, row := range []struct {
		name    string
		paths   []trace.Path
		outcome string
		seen    []Sighting
		blind   []string
		way     int
		differs string
	}{
		{"as planned", plannedWays(), "connected", []Sighting{seen("h1/web.1", client, three), seen("h3/web.3", client, three)}, nil, 2, ""},
		{"a refusal that was not planned", plannedWays(), "refused", []Sighting{seen("h1/web.1", client, two), seen("h2/web.2", client, two)}, nil, 1,
			`planned was "delivered", but the sender learnt "refused"`},
		{"lost on the way", plannedWays(), "no answer", []Sighting{seen("h1/web.1", client, two)}, nil, 0, "it was seen last at h1/web.1"},
		{"still in the tunnel", plannedWays(), "no answer", []Sighting{seen("h1/web.1", client, two), inner}, nil, 0, "none of the planned ways ends there"},
		{"by another door", plannedWays(), "connected", []Sighting{seen("h2/web.2", client, two)}, nil, 1, "the plan passes h1/web.1, where it was not seen"},
		{"another client", plannedWays(), "connected", []Sighting{seen("h1/web.1", client, two), seen("h2/web.2", "169.254.64.1:4000", two)}, nil, 1,
			"h2/web.2 sees 169.254.64.1 as the client, planned was 10.0.1.3"},
		{"no reply", plannedWays(), "no answer", []Sighting{seen("h1/web.1", client, two), seen("h2/web.2", client, two)}, nil, 1, "it arrived at h2/web.2, and nothing came back"},
		{"a node that does not watch", plannedWays(), "connected", []Sighting{seen("h1/web.1", client, two)}, []string{"h2"}, 1, "what happened at h2 was not seen"},
		{"a refusal by the sender's kernel", refusal, "refused", nil, nil, 1, ""},
		{"none where one was planned", refusal, "connected", nil, nil, 0, "it was seen nowhere"},
		{"no way, as planned", []trace.Path{{Verdict: trace.NoRoute, At: "h1/web.1"}}, "no route", nil, nil, 1, ""},
		{"a way where none was planned", []trace.Path{{Verdict: trace.NoRoute, At: "h1/web.1"}}, "connected", []Sighting{seen("h1/web.1", client, two)}, nil, 0, "none of the planned ways"},
	} {
		l := Live{Outcome: row.outcome, Seen: row.seen}
		l.compare(row.paths, row.blind)
		if l.Way != row.way || !strings.Contains(l.Differs, row.differs) || (row.differs == "") != (l.Differs == "") {
			t.Errorf("%s: way %d, %q; want %d, %q", row.name, l.Way, l.Differs, row.way, row.differs)
		}
	}
}

// TestRoutes reads lines as the kernel prints them.
func TestRoutes(t *testing.T) {
	for text, want := range map[string]string{
		"eth0 00000000 FE004D0A 0003 0 0 100 00000000 0 0 0":                     "0.0.0.0/0 via 10.77.0.254 dev eth0",
		"shoal_gw 000012AC 00000000 0001 0 0 0 0000FFFF 0 0 0":                   "172.18.0.0/16 dev shoal_gw",
		"Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT": "",
		"eth0 00000000 00000000 0201 0 0 0 00000000 0 0 0":                       "", // unreachable
	} {
		r, ok := route4(strings.Fields(text))
		if ok != (want != "") || ok && r.String() != want {
			t.Errorf("%s: %s %v, want %q", text, r, ok, want)
		}
	}
	const zero, fd00 = "00000000000000000000000000000000", "fd000000000000000000000000000000"
	for text, want := range map[string]string{
		fd00 + " 40 " + zero + " 00 " + zero + " 00000100 00000001 00000000 00000001 eth0": "fd00::/64 dev eth0",
		zero + " 00 " + zero + " 00 " + fd00 + " 00000400 00000001 00000000 00000003 eth0": "::/0 via fd00:: dev eth0",
		zero + " 00 " + zero + " 00 " + zero + " ffffffff 00000001 00000000 00200200 lo":   "",
	} {
		r, ok := route6(strings.Fields(text))
		if ok != (want != "") || ok && r.String() != want {
			t.Errorf("%s: %s %v, want %q", text, r, ok, want)
		}
	}
}
