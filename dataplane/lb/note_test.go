package lb

import (
	"context"
	"net/netip"
	"slices"
	"testing"
)

func TestTranslationDifferences(t *testing.T) {
	to := netip.MustParseAddrPort("169.254.128.2:8080")
	wish := Translation{
		Forwards:   []Forward{{Protocol: TCP, Port: 8080, To: to, Name: "web"}, {Protocol: UDP, Port: 8080, To: to, Name: "web"}},
		Masquerade: []Egress{{netip.MustParsePrefix("172.18.0.0/16"), "shoal_gw"}},
		Redirects:  []Redirect{{UDP, netip.MustParseAddrPort("127.0.0.11:53"), netip.MustParseAddrPort("127.0.0.11:4001")}},
		Return:     &ReturnPath{Interface: "eth1", Mark: 0xff000000},
	}
	turned := wish
	turned.Forwards = []Forward{wish.Forwards[1], wish.Forwards[0]}
	turned.Namespace = "elsewhere"
	if got := TranslationDifferences(wish, turned); len(got) != 0 {
		t.Errorf("order counts: %q", got)
	}
	have := Translation{Forwards: []Forward{wish.Forwards[0], {Protocol: TCP, Port: 9090, At: netip.MustParseAddr("10.0.0.5"), To: to}}, Masquerade: wish.Masquerade}
	want := []string{
		"add forward 8080/udp (web) to 169.254.128.2:8080", "remove forward 9090/tcp at 10.0.0.5 to 169.254.128.2:8080",
		"add redirect 127.0.0.11:53/udp to 127.0.0.11:4001", "add return path by eth1, mark 0xff000000, not for []",
	}
	if got := TranslationDifferences(wish, have); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestNotes(t *testing.T) {
	var got []string
	ctx := WithNotes(context.Background(), func(d string) { got = append(got, d) })
	Note(ctx, Op{Kind: RemoveService, Service: Service{Front: Front{Addr: netip.MustParseAddr("10.0.1.2")}, Name: "web"}})
	Note(ctx, "replace table x")
	Note(context.Background(), "nobody listens")
	if want := []string{"remove service 10.0.1.2 (web)", "replace table x"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
