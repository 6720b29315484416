package wire

import (
	"encoding/json"
	"net/http"
)

// JSONStream answers with JSON values one after the other, each on its own line
// and each sent at once. Not for use from several goroutines.
type JSONStream struct {
	enc   *json.Encoder
	flush func() error
}

// NewJSONStream sends the head of the answer at once, so that the client knows
// that it listens before the first value exists.
func NewJSONStream(w http.ResponseWriter) (*JSONStream, error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(w).Flush
	if err := flush(); err != nil {
		return nil, err
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return &JSONStream{enc, flush}, nil
}

// Send writes one value.
func (s *JSONStream) Send(v any) error {
	if err := s.enc.Encode(v); err != nil {
		return err
	}
	return s.flush()
}
