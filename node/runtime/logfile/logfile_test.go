package logfile

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func read(t *testing.T, path string) []Entry {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var entries []Entry
	for line := range strings.Lines(string(raw)) {
		var e Entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		entries = append(entries, e)
	}
	return entries
}

func TestCopy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w, err := Open(path, MaxSize, MaxFiles)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
	long := strings.Repeat("x", maxText+5)
	if err := Copy(w, nil, Stderr, strings.NewReader("one\n\n<\"é\">\n"+long+"\nno end"), func() time.Time { return at }); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, e := range read(t, path) {
		if e.Stream != "stderr" || !e.Time.Equal(at) {
			t.Errorf("entry %+v", e)
		}
		texts = append(texts, e.Log)
	}
	want := []string{"one\n", "\n", "<\"é\">\n", long[:maxText], "xxxxx\n", "no end"}
	if strings.Join(texts, "|") != strings.Join(want, "|") {
		t.Errorf("%d entries", len(texts))
	}
}

func TestRotation(t *testing.T) {
	for _, files := range []int{1, 3} {
		path := filepath.Join(t.TempDir(), "log")
		for range 2 { // a second writer goes on where the first one ended
			w, err := Open(path, 300, files)
			if err != nil {
				t.Fatal(err)
			}
			for range 50 {
				if err := w.Write(Entry{Log: "hello\n", Stream: "stdout"}); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
		}
		all, err := filepath.Glob(path + "*")
		if err != nil || len(all) != files {
			t.Errorf("files %v %v", all, err)
		}
		for _, p := range all {
			if info, err := os.Stat(p); err != nil || info.Size() > 300 || len(read(t, p)) == 0 {
				t.Errorf("%s: %v %v", p, info, err)
			}
		}
		if err := Remove(path); err != nil {
			t.Error(err)
		}
		if all, _ := filepath.Glob(path + "*"); len(all) != 0 {
			t.Errorf("left %v", all)
		}
	}
}
