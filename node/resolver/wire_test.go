package resolver

import (
	"fmt"
	"net"
	"os"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"shoal/dns/zone"
)

// ends are the two ends of a connection.
func ends(t testing.TB) (a, b wire) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, w := range []*wire{&a, &b} {
		f := os.NewFile(uintptr(pair[i]), "end")
		conn, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		w.UnixConn = conn.(*net.UnixConn)
		t.Cleanup(func() { w.Close() })
	}
	return a, b
}

func TestMessagesWithDescriptors(t *testing.T) {
	a, b := ends(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	long := strings.Repeat("x", 1<<20)
	sent := make(chan error, 1)
	go func() {
		err := a.write(request{Op: opDrop, ID: long})
		if err == nil {
			err = a.write(request{Op: opServe, ID: "with"}, int(r.Fd()), int(w.Fd()))
		}
		w.Close()
		sent <- err
	}()
	for _, want := range []struct {
		id  string
		fds int
	}{{long, 0}, {"with", 2}} {
		var got request
		fds, err := b.read(&got)
		if err != nil || got.ID != want.id || len(fds) != want.fds {
			t.Fatalf("%d bytes, %d descriptors, %v", len(got.ID), len(fds), err)
		}
		if want.fds > 0 {
			if _, err := unix.Write(fds[1], []byte("!")); err != nil {
				t.Error(err)
			}
		}
		closeAll(fds)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	var one [1]byte
	if _, err := r.Read(one[:]); err != nil || one[0] != '!' {
		t.Errorf("through a descriptor that was sent: %q, %v", one, err)
	}
}

func TestTooManyDescriptors(t *testing.T) {
	a, b := ends(t)
	fds := []int{0, 1, 2, 0, 1}
	if err := a.write(request{Op: opServe}, fds...); err != nil {
		t.Fatal(err)
	}
	var got request
	received, err := b.read(&got)
	closeAll(received)
	if err == nil {
		t.Errorf("%d descriptors were taken", len(received))
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x0c{\"Op\":\"hey\"}"))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Add([]byte("\x00\x00\x00\x02{"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, b := ends(t)
		go func() {
			_, _ = a.Write(raw) // the reader may go before all is written
			a.Close()
		}()
		for {
			var r request
			if fds, err := b.read(&r); err != nil {
				closeAll(fds)
				return
			}
		}
	})
}

// TestParts: however changes are cut, together they do the same.
func TestParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var now zone.Model
		for n := range rapid.IntRange(0, 4).Draw(t, "networks") {
			net := zone.Network{ID: fmt.Sprint("n", n), Name: "net"}
			for s := range rapid.IntRange(0, 3*partServices).Draw(t, "services") {
				net.Services = append(net.Services, zone.Service{Name: fmt.Sprint("s", s)})
			}
			now.Networks = append(now.Networks, net)
		}
		z := zone.Build(zone.Model{Networks: []zone.Network{{ID: "n0", Name: "net", Services: []zone.Service{{Name: "old"}}}, {ID: "n9"}}})
		var all []zone.Change
		for _, part := range split(zone.Diff(z.Model(), now)) {
			if len(part) == 0 {
				t.Fatal("an empty part")
			}
			for _, c := range part {
				if len(c.Set) > partServices {
					t.Fatalf("%d services in a part", len(c.Set))
				}
			}
			all = append(all, part...)
		}
		if got, want := z.With(all).Model(), zone.Build(now).Model(); !reflect.DeepEqual(got, want) {
			t.Fatalf("got %v\nwant %v", got, want)
		}
	})
}
