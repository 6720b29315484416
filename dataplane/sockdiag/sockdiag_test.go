package sockdiag

import (
	"testing"

	"github.com/vishvananda/netlink"
)

func TestUnheard(t *testing.T) {
	socket := func(port uint16, state uint8, received, unread, sent int) *netlink.InetDiagTCPInfoResp {
		return &netlink.InetDiagTCPInfoResp{
			InetDiagMsg: &netlink.Socket{State: state, ID: netlink.SocketID{SourcePort: port}, RQueue: uint32(unread)},
			TCPInfo:     &netlink.TCPInfo{Bytes_received: uint64(received), Bytes_sent: uint64(sent)},
		}
	}
	listen := socket(80, netlink.TCP_LISTEN, 0, 0, 0)
	for name, c := range map[string]struct {
		socket *netlink.InetDiagTCPInfoResp
		want   int
	}{
		"begins":                      {socket(80, netlink.TCP_SYN_RECV, 0, 0, 0), 1},
		"has not spoken":              {socket(80, netlink.TCP_ESTABLISHED, 0, 0, 0), 1},
		"has spoken, nobody has read": {socket(80, netlink.TCP_ESTABLISHED, 90, 90, 0), 1},
		"has spoken and closed":       {socket(80, netlink.TCP_CLOSE_WAIT, 90, 91, 0), 1},
		"is heard":                    {socket(80, netlink.TCP_ESTABLISHED, 90, 0, 0), 0},
		"is heard and goes on":        {socket(80, netlink.TCP_ESTABLISHED, 180, 90, 0), 0},
		"was spoken to":               {socket(80, netlink.TCP_ESTABLISHED, 0, 0, 40), 0},
		"is over":                     {socket(80, netlink.TCP_TIME_WAIT, 0, 0, 0), 0},
		"is the program's own":        {socket(40000, netlink.TCP_ESTABLISHED, 0, 0, 0), 0},
		"without figures":             {&netlink.InetDiagTCPInfoResp{InetDiagMsg: socket(80, netlink.TCP_ESTABLISHED, 0, 0, 0).InetDiagMsg}, 0},
	} {
		if got := unheard([]*netlink.InetDiagTCPInfoResp{c.socket, listen}); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
