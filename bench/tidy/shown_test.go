package tidy

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// shown finds a package and a test of it, perhaps with a subtest.
var shown = regexp.MustCompile("`([a-z0-9/]+)` (Test[A-Za-z0-9]+)(?:/([A-Za-z0-9]+))?")

// Every test that a page says shows something is there.
func TestPagesNameTestsThatAreThere(t *testing.T) {
	root := filepath.Join("..", "..")
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	sources := map[string]string{}
	found := 0
	for _, page := range pages {
		raw, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range shown.FindAllStringSubmatch(string(raw), -1) {
			found++
			if sources[m[1]] == "" {
				sources[m[1]] = testsOf(t, filepath.Join(root, m[1]))
			}
			if !strings.Contains(sources[m[1]], "func "+m[2]+"(") {
				t.Errorf("%s: package %s has no %s", filepath.Base(page), m[1], m[2])
			} else if m[3] != "" && !strings.Contains(sources[m[1]], `"`+m[3]+`"`) {
				t.Errorf("%s: %s of package %s has no part %s", filepath.Base(page), m[2], m[1], m[3])
			}
		}
	}
	if found == 0 {
		t.Error("no page names a test: has the form changed?")
	}
}

// testsOf is the text of a package's test files.
func testsOf(t *testing.T, dir string) string {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(raw)
	}
	return text.String()
}
