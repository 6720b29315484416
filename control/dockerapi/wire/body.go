package wire

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"shoal/control/api"
)

// MaxBody is how many bytes of a JSON body are read: several times the largest
// object that a Raft entry should carry.
const MaxBody = 4 << 20

// ReadJSON decodes the body of a request into v: one JSON value of at most
// MaxBody bytes with the content type application/json. Fields that v does not
// have are ignored, because older and newer clients send such. A missing body
// is an error.
func ReadJSON(r *http.Request, v any) error {
	if err := checkContentType(r); err != nil {
		return err
	}
	body := http.MaxBytesReader(nil, r.Body, MaxBody)
	dec := json.NewDecoder(body)
	if err := dec.Decode(v); err != nil {
		return bodyError(err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return api.Errorf(api.Invalid, "unexpected content after JSON")
	}
	return nil
}

func checkContentType(r *http.Request) error {
	header := r.Header.Get("Content-Type")
	if header == "" && r.ContentLength == 0 {
		return nil // the missing body is the error, and better said
	}
	kind, _, err := mime.ParseMediaType(header)
	if err != nil {
		return api.Errorf(api.Invalid, "malformed Content-Type header (%s): %w", header, err)
	}
	if kind != "application/json" {
		return api.Errorf(api.Invalid, "unsupported Content-Type header (%s): must be 'application/json'", header)
	}
	return nil
}

func bodyError(err error) error {
	var tooLong *http.MaxBytesError
	switch {
	case errors.As(err, &tooLong):
		return Statusf(http.StatusRequestEntityTooLarge, "request body is larger than %d bytes", tooLong.Limit)
	case errors.Is(err, io.EOF):
		return api.Errorf(api.Invalid, "invalid JSON: got EOF while reading request body")
	}
	return api.Errorf(api.Invalid, "invalid JSON: %w", err)
}

// WriteJSON answers with the status and v as JSON. An error means that v does
// not marshal or that the client is gone.
func WriteJSON(w http.ResponseWriter, code int, v any) error {
	return writeJSON(w, code, v)
}

func writeJSON(w http.ResponseWriter, code int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// Bool reads a query parameter as Docker does: absent, empty, 0, no, false and
// none are false, all else is true.
func Bool(r *http.Request, name string) bool {
	switch strings.ToLower(strings.TrimSpace(r.URL.Query().Get(name))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// StrictBool reads a query parameter that must be a Go truth value; absent is false.
func StrictBool(r *http.Request, name string) (bool, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return false, nil
	}
	value, err := strconv.ParseBool(text)
	if err != nil {
		return false, api.Errorf(api.Invalid, "invalid value for %s: %s", name, text)
	}
	return value, nil
}

// ObjectVersion reads ?version=, which every update must carry; what names the
// kind of object in the refusal.
func ObjectVersion(r *http.Request, what string) (uint64, error) {
	text := r.URL.Query().Get("version")
	version, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, api.Errorf(api.Invalid, "invalid %s version '%s': %w", what, text, err)
	}
	return version, nil
}
