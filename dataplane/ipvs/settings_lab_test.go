//go:build lab

package ipvs_test

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	mobyipvs "github.com/moby/ipvs"

	"shoal/bench/need"
	"shoal/dataplane/ipvs"
	"shoal/dataplane/lb"
	"shoal/overlay/netns"
)

// TestLabSettings: idle connections outlive IPVS's default of 15 minutes, dead
// servers are let go of, and a front answers pings.
func TestLabSettings(t *testing.T) {
	need.Feature(t, "ipvs", ipvs.Probe(context.Background()))
	ns := filepath.Join("/run/netns", "dataplane-settings")
	if err := netns.Create(ns); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { netns.Delete(ns) })
	command([]string{"ip", "link", "set", "lo", "up"}, []string{"ip", "link", "add", "br0", "type", "bridge"},
		[]string{"ip", "addr", "add", "10.9.0.1/24", "dev", "br0"}, []string{"ip", "addr", "add", "fd09::1/64", "dev", "br0", "nodad"},
		[]string{"ip", "link", "set", "br0", "up"})(t, ns)
	wish := lb.Desired{Namespace: ns, Services: []lb.Service{
		{Front: lb.Front{Addr: netip.MustParseAddr("10.9.0.2")}, Backends: []lb.Backend{{Addr: netip.MustParseAddr("10.9.0.3")}}},
		{Front: lb.Front{Addr: netip.MustParseAddr("fd09::2")}}}}
	if _, err := ipvs.New().Apply(context.Background(), wish); err != nil {
		t.Fatal(err)
	}
	h, err := mobyipvs.New(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if c, err := h.GetConfig(); err != nil || c.TimeoutTCP != 5*24*time.Hour {
		t.Errorf("timeouts %+v, %v", c, err)
	}
	for key, want := range map[string]string{"conntrack": "1", "conn_reuse_mode": "0", "expire_nodest_conn": "1", "expire_quiescent_template": "1"} {
		if err := netns.Do(ns, func() error {
			have, err := os.ReadFile("/proc/sys/net/ipv4/vs/" + key)
			if err == nil && strings.TrimSpace(string(have)) != want {
				t.Errorf("%s is %q, want %s", key, have, want)
			}
			return err
		}); err != nil {
			t.Error(err)
		}
	}
	ping(t, ns, "ip4:icmp", "10.9.0.2", 8, 0)
	ping(t, ns, "ip6:ipv6-icmp", "fd09::2", 128, 129)
}

// ping sends echo requests (RFC 792, RFC 4443) until one is answered by the address.
func ping(t *testing.T, ns, network, to string, request, answer byte) {
	t.Helper()
	var c net.Conn
	if err := netns.Do(ns, func() (err error) {
		c, err = net.Dial(network, to)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	msg := []byte{request, 0, 0, 0, 0x12, 0x34, 0, 1}
	sum := uint32(request)<<8 + 0x1234 + 1
	binary.BigEndian.PutUint16(msg[2:], ^uint16(sum+sum>>16)) // the kernel does it itself for IPv6
	buf := make([]byte, 256)
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		c.SetDeadline(time.Now().Add(time.Second))
		if _, err := c.Write(msg); err != nil {
			t.Errorf("ping %s: %v", to, err)
			return
		}
		n, _, err := c.(*net.IPConn).ReadFromIP(buf) // unlike Read, without the IPv4 header
		if err == nil && n >= 8 && buf[0] == answer {
			return
		}
	}
	t.Errorf("ping %s: no answer", to)
}
