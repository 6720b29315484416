package lb

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

type noteKey struct{}

// WithNotes returns a context under which Apply and Translate tell note, in
// words, each difference that they found and are about to take away.
func WithNotes(ctx context.Context, note func(difference string)) context.Context {
	return context.WithValue(ctx, noteKey{}, note)
}

// Note tells whoever listens under ctx of differences: operations, or texts.
func Note[T any](ctx context.Context, differences ...T) {
	note, ok := ctx.Value(noteKey{}).(func(string))
	if !ok {
		return
	}
	for _, d := range differences {
		note(fmt.Sprint(d))
	}
}

type handoverKey struct{}

// HandingOver returns a context under which Apply takes services away without cutting
// their flows: another driver balances them from now on.
func HandingOver(ctx context.Context) context.Context {
	return context.WithValue(ctx, handoverKey{}, true)
}

// HandsOver reports whether flows are to be left alone.
func HandsOver(ctx context.Context) bool { return ctx.Value(handoverKey{}) != nil }

// String is the forward as people write it.
func (f Forward) String() string {
	name := ""
	if f.Name != "" {
		name = " (" + f.Name + ")"
	}
	at := ""
	if f.At.IsValid() {
		at = " at " + f.At.String()
	}
	return fmt.Sprintf("forward %d/%s%s%s to %s", f.Port, f.Protocol, at, name, f.To)
}

// String is the masquerading as people write it.
func (e Egress) String() string { return fmt.Sprintf("masquerade %s off %s", e.Source, e.Bridge) }

// String is the inner prefix as people write it.
func (i Inner) String() string { return fmt.Sprintf("inner %s behind %s", i.Prefix, i.Link) }

// String is the redirect as people write it.
func (r Redirect) String() string {
	return fmt.Sprintf("redirect %s/%s to %s", r.From, r.Protocol, r.To)
}

// String is the member list as people write it.
func (m *Members) String() string { return fmt.Sprintf("members of port %d: %v", m.Port, m.Addrs) }

// String is the return path as people write it.
func (r *ReturnPath) String() string {
	return fmt.Sprintf("return path by %s, mark %#x, not for %v", r.Interface, r.Mark, r.Direct)
}

// TranslationDifferences says in words what leads from actual to desired, field
// by field; nothing when they translate alike. Order in lists does not count.
func TranslationDifferences(desired, actual Translation) []string {
	var out []string
	want, have := reflect.ValueOf(desired), reflect.ValueOf(actual)
	for i := range want.NumField() {
		name := want.Type().Field(i).Name
		if name == "Namespace" {
			continue
		}
		a, b := parts(name, want.Field(i)), parts(name, have.Field(i))
		for _, text := range missing(a, b) {
			out = append(out, "add "+text)
		}
		for _, text := range missing(b, a) {
			out = append(out, "remove "+text)
		}
	}
	return out
}

// parts are the words for a field: one for each element of a list, one for
// anything else that is set.
func parts(name string, v reflect.Value) (out []string) {
	switch {
	case v.IsZero():
	case v.Kind() == reflect.Slice:
		for i := range v.Len() {
			out = append(out, words(name, v.Index(i).Interface()))
		}
	default:
		out = append(out, words(name, v.Interface()))
	}
	return out
}

// words are the value's own, or the field's name and the value.
func words(name string, v any) string {
	if s, ok := v.(fmt.Stringer); ok {
		return s.String()
	}
	return fmt.Sprintf("%s %+v", strings.ToLower(name), v)
}

// missing are the words of a that b has not, as often as a has more of them.
func missing(a, b []string) (out []string) {
	rest := slices.Clone(b)
	for _, text := range a {
		if i := slices.Index(rest, text); i >= 0 {
			rest = slices.Delete(rest, i, i+1)
			continue
		}
		out = append(out, text)
	}
	return out
}
