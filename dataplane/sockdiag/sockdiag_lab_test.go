//go:build lab

package sockdiag

import (
	"net"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/vishvananda/netlink"

	"shoal/overlay/netns"
)

// TestUnheardInTheKernel: what the kernel shows of a connection from its beginning
// until the program has read from it.
func TestUnheardInTheKernel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "task")
	if err := netns.Create(path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := netns.Delete(path); err != nil {
			t.Error(err)
		}
	})
	if _, err := Unheard(path + "-other"); err == nil {
		t.Error("a namespace that is not there has sockets")
	}
	if err := netns.Do(path, up); err != nil {
		t.Fatal(err)
	}
	want := func(n int, when string) {
		t.Helper()
		if got, err := Unheard(path); err != nil || got != n {
			t.Errorf("%s: %d unheard (%v), want %d", when, got, err, n)
		}
	}
	for _, c := range []struct{ server, client string }{
		{"127.0.0.1", "127.0.0.1"}, {"::1", "::1"},
		{"::", "127.0.0.1"}, // a client of IPv4 at a socket for both
	} {
		l, err := netns.Listen(t.Context(), path, "tcp", net.JoinHostPort(c.server, "0"))
		if err != nil {
			t.Fatal(err)
		}
		want(0, "nobody came")
		port := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
		client, err := netns.Dial(t.Context(), path, "tcp", net.JoinHostPort(c.client, port))
		if err != nil {
			t.Fatal(err)
		}
		want(1, "connected, not accepted")
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		want(1, "accepted")
		if _, err := client.Write([]byte("question")); err != nil {
			t.Fatal(err)
		}
		want(1, "the question lies there") // on loopback what is written has come
		if _, err := server.Read(make([]byte, 16)); err != nil {
			t.Fatal(err)
		}
		want(0, "the question is read")
		for _, c := range []interface{ Close() error }{client, server, l} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

func up() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}
