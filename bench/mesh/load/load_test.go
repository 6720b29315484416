package load

import (
	"bytes"
	"encoding/json"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// target is a server of this process, and its address.
func target(t *testing.T) netip.AddrPort {
	t.Helper()
	// A port that was free a moment ago.
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(l.Addr().String())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	go func() { t.Log(Serve(int(at.Port()))) }() // serves until the process ends
	for end := time.Now().Add(5 * time.Second); ; {
		conn, err := net.Dial("tcp4", at.String())
		if err == nil {
			conn.Close()
			return at
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func TestKinds(t *testing.T) {
	at := target(t)
	for _, kind := range []Kind{Ask, Connect, Bulk} {
		r, err := Run(Job{Kind: kind, Target: at, Conns: 4, Warm: 10 * time.Millisecond, Length: 50 * time.Millisecond})
		if err != nil || r.Failed != 0 {
			t.Fatalf("%s: %+v %v", kind, r, err)
		}
		if r.Count+r.Bytes == 0 || r.Total < r.Count || r.Seconds < 0.05 || r.P50 > r.P99 || kind != Bulk && r.P50 <= 0 {
			t.Errorf("%s: %+v", kind, r)
		}
	}
}

// TestAccounts: the server counts bytes itself, and it must be what was sent.
func TestAccounts(t *testing.T) {
	at := target(t)
	conn, err := net.Dial("tcp4", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(append([]byte{wantsCount}, make([]byte, 99999)...)); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 16)
	n, err := conn.Read(got)
	if err != nil || !bytes.Equal(got[:n], []byte{0, 0, 0, 0, 0, 1, 0x86, 0xa0}) {
		t.Errorf("count % x %v", got[:n], err)
	}
}

func TestNobodyThere(t *testing.T) {
	// A bound port on which nobody listens refuses.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(name.(*unix.SockaddrInet4).Port))
	for _, kind := range []Kind{Ask, Connect, Bulk} {
		r, err := Run(Job{Kind: kind, Target: at, Conns: 2, Length: 20 * time.Millisecond})
		if err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: %+v %v", kind, r, err)
		}
	}
}

func TestAgent(t *testing.T) {
	at := target(t)
	var in, out bytes.Buffer
	for _, j := range []Job{
		{Kind: "nothing", Target: at, Conns: 1, Length: time.Millisecond},
		{Kind: Ask, Target: at, Conns: 1, Length: time.Hour},
		{Kind: Ask, Target: at, Conns: 0, Length: time.Millisecond},
		{Kind: Ask, Conns: 1, Length: time.Millisecond},
		{Kind: Ask, Target: at, Conns: 1, Length: 10 * time.Millisecond},
	} {
		if err := json.NewEncoder(&in).Encode(j); err != nil {
			t.Fatal(err)
		}
	}
	if err := Agent(&in, &out); err != nil {
		t.Fatal(err)
	}
	replies := json.NewDecoder(&out)
	for i := range 5 {
		var r reply
		if err := replies.Decode(&r); err != nil {
			t.Fatal(err)
		}
		if (r.Error == "") != (i == 4) || i == 4 && r.Result.Count == 0 {
			t.Errorf("reply %d: %+v", i, r)
		}
	}
	if Agent(strings.NewReader("{"), &out) == nil {
		t.Error("half a job is accepted")
	}
}

func TestQuantile(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i)*time.Microsecond)
	}
	if q := quantile(hundred, 0.99); q != 99 {
		t.Error(q)
	}
	if q := quantile(nil, 0.5); q != 0 {
		t.Error(q)
	}
}
