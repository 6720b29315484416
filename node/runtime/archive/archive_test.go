package archive

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func build(t *testing.T) []byte {
	t.Helper()
	var raw bytes.Buffer
	err := Write(&raw, Image{
		Program: []byte("binary"), Path: "/bin/deep/x", Tags: []string{"a:1", "a:2"}, Ports: []string{"80/tcp"},
		Files: map[string]string{"/etc/b": "b", "/etc/a": "a", "/bin/y": "y"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return raw.Bytes()
}

func files(t *testing.T, raw []byte) (names []string, content map[string][]byte) {
	t.Helper()
	content = map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(raw)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return names, content
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, header.Name)
		if content[header.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWrite(t *testing.T) {
	raw := build(t)
	if !bytes.Equal(raw, build(t)) {
		t.Error("two builds differ")
	}
	names, content := files(t, raw)
	if len(names) != 3 || names[2] != "manifest.json" {
		t.Fatalf("files %q", names)
	}
	if index := string(content["manifest.json"]); !strings.Contains(index, `"RepoTags":["a:1","a:2"]`) || !strings.Contains(index, names[0]) {
		t.Errorf("manifest %s", index)
	}
	for _, text := range []string{`"Entrypoint":["/bin/deep/x"]`, `"80/tcp":{}`, digest(content[names[1]])} {
		if !strings.Contains(string(content[names[0]]), text) {
			t.Errorf("no %s in the configuration", text)
		}
	}
	inside, _ := files(t, content[names[1]])
	want := []string{"bin/", "bin/deep/", "bin/deep/x", "bin/y", "etc/", "etc/a", "etc/b"}
	if !slices.Equal(inside, want) {
		t.Errorf("layer %q", inside)
	}
}
