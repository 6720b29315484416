package api

import (
	"errors"
	"fmt"
)

// ErrorKind classifies an error for whoever must act on it; the Docker API maps
// each kind to one HTTP status.
type ErrorKind string

// The kinds of error and their HTTP status.
const (
	NotFound      ErrorKind = "not-found"       // 404
	Invalid       ErrorKind = "invalid"         // 400
	Conflict      ErrorKind = "conflict"        // 409
	Forbidden     ErrorKind = "forbidden"       // 403
	Unavailable   ErrorKind = "unavailable"     // 503
	Unimplemented ErrorKind = "unimplemented"   // 501
	OutOfSequence ErrorKind = "out-of-sequence" // 500, as Docker answers a stale version
	Internal      ErrorKind = "internal"        // 500
)

// Error is an error with a kind. It survives JSON, so that a refusal reads the
// same on the node that made it and on the one that forwarded the request.
type Error struct {
	Kind    ErrorKind
	Message string
}

func (e *Error) Error() string { return e.Message }

// Errorf makes an Error. A %w operand's text is kept, the chain is not.
func Errorf(kind ErrorKind, format string, args ...any) error {
	return &Error{Kind: kind, Message: fmt.Errorf(format, args...).Error()}
}

// KindOf returns the kind of the first Error in err's chain, Internal without one.
func KindOf(err error) ErrorKind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}
