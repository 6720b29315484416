package main

import (
	"encoding"

	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"shoal/node/netview"
)

// answers are what the commands print with --format json.
var answers = map[string]any{
	"endpoints": []netview.Endpoint{}, "lb": netview.Balancer{}, "dns": []netview.Name{}, "overlay": []netview.Overlay{},
	"tunnels": netview.Tunnels{}, "gossip": netview.Gossip{}, "datapath": netview.DataPath{}, "drift": netview.Drift{}, "drift --healed": netview.Healed{},
	"top": sample{}, "trace": netview.Route{},
}

var asText = reflect.TypeFor[encoding.TextMarshaler]()

// fields lists the paths of a type's fields in JSON, with what they hold.
func fields(path string, t reflect.Type) []string {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return []string{path + " nanoseconds"}
	case t == reflect.TypeFor[time.Time]():
		return []string{path + " time"}
	case t.Implements(asText):
		return []string{path + " text"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return fields(path, t.Elem())
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return []string{path + " text"}
		}
		return fields(path+"[]", t.Elem())
	case reflect.Map:
		return fields(path+"{}", t.Elem())
	case reflect.Struct:
		return structFields(path, t)
	case reflect.String:
		return []string{path + " text"}
	case reflect.Bool:
		return []string{path + " true/false"}
	}
	return []string{path + " number"}
}

func structFields(path string, t reflect.Type) (out []string) {
	own := map[string]bool{}
	for i := range t.NumField() {
		own[t.Field(i).Name] = !t.Field(i).Anonymous
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-" || !f.IsExported():
		case f.Anonymous && name == "":
			for _, inner := range fields(path, f.Type) {
				first, _, _ := strings.Cut(strings.TrimPrefix(inner, path+"."), " ")
				first, _, _ = strings.Cut(first, ".")
				if !own[strings.TrimRight(first, "[]{}")] {
					out = append(out, inner)
				}
			}
		case name != "":
			out = append(out, fields(join(path, name), f.Type)...)
		default:
			out = append(out, fields(join(path, f.Name), f.Type)...)
		}
	}
	return out
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// TestJSONIsDocumented: the page has exactly the fields that programs get.
func TestJSONIsDocumented(t *testing.T) {
	raw, err := os.ReadFile("../../docs/netctl-json.md")
	if err != nil {
		t.Fatal(err)
	}
	told := map[string]string{}
	for _, m := range regexp.MustCompile("(?s)## ([a-z -]+)\n\n```\n(.*?)```").FindAllStringSubmatch(string(raw), -1) {
		told[m[1]] = strings.TrimSpace(m[2])
	}
	for name, answer := range answers {
		want := strings.Join(fields("", reflect.TypeOf(answer)), "\n")
		if told[name] != want {
			t.Errorf("the page of %s differs; it should have\n## %s\n\n```\n%s\n```", name, name, want)
		}
	}
	if len(told) != len(answers) {
		t.Errorf("the page has %d commands, there are %d", len(told), len(answers))
	}
}
