package netns

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestWhatIsNoNamespace(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{plain, dir, filepath.Join(dir, "missing")} {
		if Exists(path) {
			t.Errorf("%s exists as a namespace", path)
		}
		if _, err := Open(path); err == nil {
			t.Errorf("%s opens as a namespace", path)
		}
		if err := Do(path, func() error { t.Error("ran"); return nil }); err == nil {
			t.Errorf("%s can be entered", path)
		}
	}
	if got, err := List(filepath.Join(dir, "missing")); err != nil || got != nil {
		t.Errorf("list of a missing directory: %v, %v", got, err)
	}
	if _, err := Open(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open of a missing path: %v", err)
	}
}

func TestSocketsRefuseNames(t *testing.T) {
	for _, address := range []string{"localhost:80", "127.0.0.1", ""} {
		if conn, err := Dial(context.Background(), "", "tcp", address); err == nil {
			conn.Close()
			t.Errorf("dialled %q", address)
		}
		if l, err := Listen(context.Background(), "", "tcp", address); err == nil {
			l.Close()
			t.Errorf("listens at %q", address)
		}
	}
}

func TestPathOfAnOpenNamespace(t *testing.T) {
	own, err := Open("")
	if err != nil {
		t.Fatal(err)
	}
	if id, ok := Identify(own.Path()); !ok || id != own.ID() {
		t.Errorf("%s is %v, not %v", own.Path(), id, own.ID())
	}
	if err := own.Close(); err != nil {
		t.Fatal(err)
	}
}
