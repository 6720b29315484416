package tidy

import (
	"fmt"
	"go/ast"
	"go/types"
	"slices"
	"strconv"
	"strings"
)

// pureRooms must give the same answer for the same input: they read no clock,
// draw no lots and open nothing.
var pureRooms = []string{
	"control/store", "control/fsm", "control/alloc", "control/schedule", "control/orchestrate", "control/genesis",
	"overlay/endpoint", "overlay/vxlan", "overlay/wireguard", "dataplane/lb", "dataplane/trace", "dns/zone", "dns/resolvconf", "node/plan",
}

// impureCalls are calls that a pure room may not make, by package and name.
var impureCalls = map[string][]string{
	"time": {"Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker", "Sleep"},
	"os":   {"Open", "Create", "ReadFile", "WriteFile", "Getenv", "OpenFile"},
	"net":  {"Dial", "Listen", "ListenPacket", "DialTimeout", "Interfaces"},
}

// impureImports are packages that a pure room may not import.
var impureImports = []string{"math/rand", "math/rand/v2", "crypto/rand"}

// Pure complains about clocks, lots and input in rooms that must be pure.
func Pure(files []File) (complaints []string) {
	for _, f := range files {
		if f.Test() || !inPureRoom(f) {
			continue
		}
		for _, spec := range f.Syntax.Imports {
			if p, err := strconv.Unquote(spec.Path.Value); err == nil && slices.Contains(impureImports, p) {
				complaints = append(complaints, fmt.Sprintf("%s imports %s in a pure room", f.Path, p))
			}
		}
		ast.Inspect(f.Syntax, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Obj == nil && slices.Contains(impureCalls[x.Name], sel.Sel.Name) {
				complaints = append(complaints, fmt.Sprintf("%s:%d: %s.%s in a pure room", f.Path, f.Set.Position(sel.Pos()).Line, x.Name, sel.Sel.Name))
			}
			return true
		})
	}
	return complaints
}

func inPureRoom(f File) bool {
	pkg := f.Package()
	if strings.HasSuffix(pkg, "test") { // helpers of tests
		return false
	}
	return slices.ContainsFunc(pureRooms, func(room string) bool { return pkg == room || strings.HasPrefix(pkg, room+"/") })
}

// namespaceCalls belong to overlay/netns alone.
var namespaceCalls = map[string][]string{
	"runtime": {"LockOSThread"},
	"unix":    {"Setns", "Unshare"},
	"netns":   {"Set", "New"},
}

// Threads complains about thread locks and namespace switches outside overlay/netns.
func Threads(files []File) (complaints []string) {
	for _, f := range files {
		if f.Test() || f.Package() == "overlay/netns" {
			continue
		}
		ast.Inspect(f.Syntax, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if x, ok := sel.X.(*ast.Ident); ok && x.Obj == nil && slices.Contains(namespaceCalls[x.Name], sel.Sel.Name) {
				complaints = append(complaints, fmt.Sprintf("%s:%d: %s.%s outside overlay/netns", f.Path, f.Set.Position(sel.Pos()).Line, x.Name, sel.Sel.Name))
			}
			return true
		})
	}
	return complaints
}

// unfinished are words that promise work for later.
var unfinished = []string{"TODO", "FIXME", "XXX", "not implemented", "placeholder", "for now"}

// Unfinished complains about comments and texts that promise work for later.
func Unfinished(files []File) (complaints []string) {
	for _, f := range files {
		if f.Package() == "bench/tidy" {
			continue
		}
		for _, group := range f.Syntax.Comments {
			for _, word := range unfinished {
				if strings.Contains(group.Text(), word) {
					complaints = append(complaints, fmt.Sprintf("%s:%d: a comment says %q", f.Path, f.Set.Position(group.Pos()).Line, word))
				}
			}
		}
	}
	return complaints
}

// Skips complains about tests that skip themselves without naming a feature.
func Skips(files []File) (complaints []string) {
	for _, f := range files {
		if !f.Test() {
			continue
		}
		ast.Inspect(f.Syntax, func(n ast.Node) bool {
			switch fn := n.(type) {
			case *ast.FuncDecl:
				complaints = append(complaints, skipsIn(f, fn.Type, fn.Body)...)
			case *ast.FuncLit:
				complaints = append(complaints, skipsIn(f, fn.Type, fn.Body)...)
			}
			return true
		})
	}
	return complaints
}

// skipsIn looks for calls that skip, on the parameters of the function that are
// package testing's: a property that discards a draw is another thing.
func skipsIn(f File, kind *ast.FuncType, body *ast.BlockStmt) (complaints []string) {
	tests := map[string]bool{}
	for _, param := range kind.Params.List {
		if strings.Contains(types.ExprString(param.Type), "testing.") {
			for _, name := range param.Names {
				tests[name.Name] = true
			}
		}
	}
	if len(tests) == 0 || body == nil {
		return nil
	}
	ast.Inspect(body, func(n ast.Node) bool {
		if _, nested := n.(*ast.FuncLit); nested {
			return false // it is looked at by itself
		}
		sel, ok := n.(*ast.SelectorExpr)
		if !ok || !strings.HasPrefix(sel.Sel.Name, "Skip") {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && tests[x.Name] {
			complaints = append(complaints, fmt.Sprintf("%s:%d: a test is skipped without bench/need", f.Path, f.Set.Position(sel.Pos()).Line))
		}
		return true
	})
	return complaints
}
