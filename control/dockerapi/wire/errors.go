package wire

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/moby/moby/api/types/common"

	"shoal/control/api"
)

// statusError is an error with an HTTP status that no kind of api.Error stands for.
type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return e.text }

// Statusf makes an error that is answered with the given HTTP status. It is for
// the statuses that no api.ErrorKind has, such as 304 and 401.
func Statusf(code int, format string, args ...any) error {
	return &statusError{code, fmt.Errorf(format, args...).Error()}
}

// statusOf maps kinds to statuses as Docker does.
var statusOf = map[api.ErrorKind]int{
	api.NotFound:      http.StatusNotFound,
	api.Invalid:       http.StatusBadRequest,
	api.Conflict:      http.StatusConflict,
	api.Forbidden:     http.StatusForbidden,
	api.Unavailable:   http.StatusServiceUnavailable,
	api.Unimplemented: http.StatusNotImplemented,
	api.OutOfSequence: http.StatusInternalServerError,
	api.Internal:      http.StatusInternalServerError,
}

// StatusOf returns the HTTP status that err is answered with.
func StatusOf(err error) int {
	var s *statusError
	if errors.As(err, &s) {
		return s.code
	}
	if code, ok := statusOf[api.KindOf(err)]; ok {
		return code
	}
	return http.StatusInternalServerError
}

// WriteError answers the request with err: its status and {"message": …}. The
// content type is "application/json" exactly, which the docker CLI compares.
func WriteError(w http.ResponseWriter, err error) {
	code := StatusOf(err)
	if code == http.StatusNotModified {
		w.WriteHeader(code)
		return
	}
	writeJSON(w, code, common.ErrorResponse{Message: err.Error()})
}
