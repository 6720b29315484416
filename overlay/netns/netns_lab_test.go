//go:build lab

package netns

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"shoal/bench/need"
)

// namespace makes a namespace that the test deletes.
func namespace(t *testing.T, dir, name string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		need.Feature(t, "netns", errors.New("not root"))
	}
	path := filepath.Join(dir, name)
	err := Create(path)
	if errors.Is(err, unix.EPERM) {
		need.Feature(t, "netns", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Delete(path); err != nil {
			t.Error(err)
		}
	})
	return path
}

// current is the namespace of the calling thread.
func current(t *testing.T) ID {
	t.Helper()
	id, ok := Identify(threadNamespace)
	if !ok {
		t.Error("the thread has no namespace")
	}
	return id
}

func TestLifeOfANamespace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "on", "demand")
	path := namespace(t, dir, "overlay-a")
	if !Exists(path) {
		t.Error("made, but does not exist")
	}
	if err := Create(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second creation: %v, want ErrExist", err)
	}
	if !Exists(path) {
		t.Error("a refused creation took the namespace away")
	}
	if got, err := List(dir); err != nil || !slices.Equal(got, []string{path}) {
		t.Errorf("list: %v, %v", got, err)
	}
	for range 2 { // the second time there is nothing
		if err := Delete(path); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something is left: %v", err)
	}
}

func TestCreateUsesWhatACrashLeft(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "overlay-a"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if path := namespace(t, dir, "overlay-a"); !Exists(path) {
		t.Error("no namespace over the plain file")
	}
}

func TestCreateLeavesNothingHalfMade(t *testing.T) {
	namespace(t, t.TempDir(), "overlay-probe")
	dir := t.TempDir()
	path := filepath.Join(dir, "overlay-a")
	if err := os.Symlink("/nowhere/at/all", path); err != nil {
		t.Fatal(err)
	}
	if err := Create(path); err == nil {
		t.Error("created through a dangling link")
	}
	if got, _ := List(dir); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func TestDeleteTakesStackedMounts(t *testing.T) {
	path := namespace(t, t.TempDir(), "overlay-a")
	if err := unix.Mount(threadNamespace, path, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := Delete(path); err != nil || Exists(path) {
		t.Errorf("delete: %v, exists %v", err, Exists(path))
	}
}

func TestDoEntersAndComesBack(t *testing.T) {
	path := namespace(t, t.TempDir(), "overlay-a")
	other := namespace(t, t.TempDir(), "overlay-b")
	want, _ := Identify(path)
	wantOther, _ := Identify(other)
	own, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			err := Do(path, func() error {
				if got := current(t); got != want {
					t.Errorf("inside %v, want %v", got, want)
				}
				return Do(other, func() error {
					if got := current(t); got != wantOther {
						t.Errorf("nested inside %v, want %v", got, wantOther)
					}
					return nil
				})
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	// Every thread that runs goroutines now is in the process's own namespace.
	for range 50 {
		all.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if got := current(t); got != own.ID() {
				t.Errorf("a thread stayed in %v", got)
			}
			time.Sleep(time.Millisecond) // holds the thread, so that the others need more
		})
	}
	all.Wait()
}

func TestDoReturnsWhatTheFunctionReturns(t *testing.T) {
	path := namespace(t, t.TempDir(), "overlay-a")
	failure := errors.New("no")
	if err := Do(path, func() error { return failure }); !errors.Is(err, failure) {
		t.Errorf("got %v", err)
	}
	if err := Do(path, func() error { runtime.Goexit(); return nil }); !errors.Is(err, errGoexit) {
		t.Errorf("after Goexit: %v", err)
	}
	if err := Do("", func() error { return failure }); !errors.Is(err, failure) {
		t.Errorf("own namespace: %v", err)
	}
}

func TestSocketsStayInside(t *testing.T) {
	path := namespace(t, t.TempDir(), "overlay-a")
	up := func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		req, err := unix.NewIfreq("lo")
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_UP)
		return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req)
	}
	if err := Do(path, up); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	listener, err := Listen(ctx, path, "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		if conn, err := listener.Accept(); err == nil {
			_, _ = conn.Write([]byte("inside"))
			conn.Close()
		}
	}()
	address := listener.Addr().String()
	if conn, err := net.DialTimeout("tcp", address, time.Second); err == nil {
		conn.Close()
		t.Error("reached from outside")
	}
	conn, err := Dial(ctx, path, "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	buf := make([]byte, 6)
	if _, err := conn.Read(buf); err != nil || string(buf) != "inside" {
		t.Errorf("read %q, %v", buf, err)
	}
	packets, err := ListenPacket(ctx, path, "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	packets.Close()
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	keep, orphan := namespace(t, dir, "overlay-keep"), namespace(t, dir, "overlay-orphan")
	plain := filepath.Join(dir, "overlay-plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	removed, err := Sweep(dir, func(path string) bool { return path == keep })
	if err != nil || !slices.Equal(removed, []string{orphan, plain}) {
		t.Errorf("swept %v, %v", removed, err)
	}
	if got, _ := List(dir); !slices.Equal(got, []string{keep}) {
		t.Errorf("left %v", got)
	}
}
