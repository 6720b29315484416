// Package tidy holds the rules of the house as code: who may import whom, how
// long files and functions may be, which rooms must be pure, that every package
// says what it is. Each rule is a pure function from parsed files to complaints
// and has a test that it must reject, so that no rule can silently stop working.
package tidy

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
)

// Limits of the house.
const (
	maxFileLines = 500
	maxFuncLines = 70
)

// File is one parsed Go file.
type File struct {
	// Path is relative to the module, with slashes.
	Path   string
	Syntax *ast.File
	Set    *token.FileSet
}

// Package is the directory the file is in.
func (f File) Package() string { return filepath.ToSlash(filepath.Dir(f.Path)) }

// Test says whether the file is only built for tests.
func (f File) Test() bool { return strings.HasSuffix(f.Path, "_test.go") }

// Lines is the number of lines of the file.
func (f File) Lines() int { return f.Set.File(f.Syntax.Pos()).LineCount() }

// Parse reads one file.
func Parse(path string, src any) (File, error) {
	set := token.NewFileSet()
	syntax, err := parser.ParseFile(set, path, src, parser.ParseComments)
	return File{Path: filepath.ToSlash(path), Syntax: syntax, Set: set}, err
}

// Load parses every Go file of the module at root.
func Load(root string) ([]File, error) {
	var files []File
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && strings.HasPrefix(d.Name(), ".") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		f, err := Parse(path, nil)
		if err != nil {
			return err
		}
		if f.Path, err = filepath.Rel(root, path); err != nil {
			return err
		}
		files = append(files, f)
		return nil
	})
	return files, err
}

// Sizes complains about files and functions that are too long.
func Sizes(files []File) (complaints []string) {
	for _, f := range files {
		if f.Test() {
			continue
		}
		if n := f.Lines(); n > maxFileLines {
			complaints = append(complaints, fmt.Sprintf("%s has %d lines, more than %d", f.Path, n, maxFileLines))
		}
		for _, d := range f.Syntax.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			from, to := f.Set.Position(fn.Pos()), f.Set.Position(fn.End())
			if n := to.Line - from.Line + 1; n > maxFuncLines {
				complaints = append(complaints, fmt.Sprintf("%s:%d: %s has %d lines, more than %d", f.Path, from.Line, fn.Name.Name, n, maxFuncLines))
			}
		}
	}
	return complaints
}

// PackageComments complains about packages without exactly one package comment.
func PackageComments(files []File) (complaints []string) {
	docs := map[string]int{}
	for _, f := range files {
		if f.Test() {
			continue
		}
		n := 0
		if f.Syntax.Doc != nil && (strings.HasPrefix(f.Syntax.Doc.Text(), "Package ") || strings.HasPrefix(f.Syntax.Doc.Text(), "Command ")) {
			n = 1
		}
		docs[f.Package()] += n
	}
	for pkg, n := range docs {
		if n != 1 {
			complaints = append(complaints, fmt.Sprintf("package %s has %d package comments", pkg, n))
		}
	}
	return complaints
}

// ExportedDocs complains about exported declarations without a doc comment.
func ExportedDocs(files []File) (complaints []string) {
	for _, f := range files {
		if f.Test() || f.Syntax.Name.Name == "main" {
			continue
		}
		for _, d := range f.Syntax.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if ok && fn.Name.IsExported() && fn.Doc == nil && exportedReceiver(fn) {
				complaints = append(complaints, fmt.Sprintf("%s:%d: %s has no doc comment", f.Path, f.Set.Position(fn.Pos()).Line, fn.Name.Name))
			}
		}
	}
	return complaints
}

func exportedReceiver(fn *ast.FuncDecl) bool {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return true
	}
	t := fn.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	name, ok := t.(*ast.Ident)
	return ok && name.IsExported() && fn.Name.Name != "Error" && fn.Name.Name != "Unwrap" && fn.Name.Name != "String"
}
