package netfilter

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
)

func TestWithinMasksWholeAndBrokenBytes(t *testing.T) {
	for _, row := range []struct {
		prefix, mask string
	}{{"10.0.0.0/8", "255.0.0.0"}, {"172.16.0.0/12", "255.240.0.0"}, {"10.1.2.3/32", "255.255.255.255"}, {"0.0.0.0/0", "0.0.0.0"}} {
		exprs := IPv4.Within(IPv4.LoadDest(Reg1), netip.MustParsePrefix(row.prefix))
		got, _ := netip.AddrFromSlice(exprs[1].(*expr.Bitwise).Mask)
		if got.String() != row.mask {
			t.Errorf("%s is masked by %s, want %s", row.prefix, got, row.mask)
		}
	}
}

func TestParseAddrPort(t *testing.T) {
	for _, f := range []struct {
		family Family
		addr   string
	}{{IPv4, "10.0.0.2"}, {IPv6, "fd00::2"}} {
		a := netip.MustParseAddr(f.addr)
		if got, port, ok := f.family.ParseAddrPort(append(a.AsSlice(), PortKey(8080)...)); !ok || got != a || port != 8080 {
			t.Errorf("%s:8080 reads back as %s %d %t", a, got, port, ok)
		}
		if got, port, ok := f.family.ParseAddrPort(a.AsSlice()); !ok || got != a || port != 0 {
			t.Errorf("%s reads back as %s %d %t", a, got, port, ok)
		}
		if _, _, ok := f.family.ParseAddrPort(append(a.AsSlice(), 1)); ok {
			t.Error("a wrong length is taken")
		}
	}
}

// FuzzComment: a rule of ours that somebody tampered with does not end the daemon.
func FuzzComment(f *testing.F) {
	f.Add(userdata.AppendString(nil, userdata.TypeComment, "rr web"))
	f.Add([]byte{0, 200, 1})
	f.Add([]byte{1, 0, 0, 9})
	f.Fuzz(func(t *testing.T, data []byte) {
		if s := Comment(&nftables.Rule{UserData: data}); len(s) > len(data) {
			t.Errorf("%d bytes hold a comment of %d", len(data), len(s))
		}
	})
}

func TestClip(t *testing.T) {
	if got := Clip(strings.Repeat("x", 300)); len(got) != CommentMax || Clip("web") != "web" {
		t.Errorf("clipped to %d", len(got))
	}
}
