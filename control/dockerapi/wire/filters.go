package wire

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"

	"shoal/control/api"
)

// maxFilters bounds the values of all filters of one request together.
const maxFilters = 10_000

// Filters are the decoded ?filters= of a list: key → accepted values. All
// methods work on a nil Filters, which accepts everything.
type Filters map[string][]string

// ParseFilters reads the filters of a request: {"key":{"value":true}}, or
// {"key":["value"]} as clients before 1.22 sent it. A key that is not accepted
// is refused; without any accepted key, all are.
func ParseFilters(r *http.Request, accepted ...string) (Filters, error) {
	f, err := decodeFilters(r.URL.Query().Get("filters"))
	if err != nil {
		return nil, err
	}
	for _, key := range slices.Sorted(maps.Keys(f)) {
		if !slices.Contains(accepted, key) {
			return nil, api.Errorf(api.Invalid, "invalid filter '%s'", key)
		}
	}
	return f, nil
}

func decodeFilters(text string) (Filters, error) {
	if text == "" {
		return nil, nil
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		return nil, api.Errorf(api.Invalid, "invalid filter")
	}
	f, total := Filters{}, 0
	for key, value := range raw {
		values, err := filterValues(value)
		if err != nil {
			return nil, api.Errorf(api.Invalid, "invalid filter '%s'", key)
		}
		if total += len(values); total > maxFilters {
			return nil, api.Errorf(api.Invalid, "too many filter values: at most %d are accepted", maxFilters)
		}
		f[key] = values
	}
	return f, nil
}

func filterValues(raw json.RawMessage) ([]string, error) {
	if raw = bytes.TrimSpace(raw); len(raw) > 0 && raw[0] == '[' {
		var list []string
		if err := json.Unmarshal(raw, &list); err != nil {
			return nil, err
		}
		slices.Sort(list)
		return slices.Compact(list), nil
	}
	var set map[string]bool
	if err := json.Unmarshal(raw, &set); err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(set)), nil
}

// Has says whether the request filters by key.
func (f Filters) Has(key string) bool { return len(f[key]) > 0 }

// Exact says whether one of the key's values equals got, or the key is not used.
func (f Filters) Exact(key, got string) bool {
	return !f.Has(key) || slices.Contains(f[key], got)
}

// Prefix says whether got starts with one of the key's values, or the key is not used.
func (f Filters) Prefix(key, got string) bool {
	return f.match(key, func(v string) bool { return strings.HasPrefix(got, v) })
}

// Contains says whether got contains one of the key's values, or the key is not used.
func (f Filters) Contains(key, got string) bool {
	return f.match(key, func(v string) bool { return strings.Contains(got, v) })
}

func (f Filters) match(key string, ok func(string) bool) bool {
	return !f.Has(key) || slices.ContainsFunc(f[key], ok)
}

// Labels says whether labels satisfies every value of the key: "k" (the label
// is there) or "k=v" (it is there with that value).
func (f Filters) Labels(key string, labels map[string]string) bool {
	for _, want := range f[key] {
		name, value, hasValue := strings.Cut(want, "=")
		got, ok := labels[name]
		if !ok || hasValue && got != value {
			return false
		}
	}
	return true
}

// Bool reads a filter that holds one truth value, such as dangling.
func (f Filters) Bool(key string) (value, set bool, err error) {
	values := f[key]
	if len(values) == 0 {
		return false, false, nil
	}
	if len(values) == 1 {
		switch values[0] {
		case "1", "true":
			return true, true, nil
		case "0", "false":
			return false, true, nil
		}
	}
	return false, false, api.Errorf(api.Invalid, "invalid filter '%s=%s'", key, values)
}
