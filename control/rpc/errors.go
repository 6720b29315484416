package rpc

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"shoal/control/api"
)

// NotLeaderError is the answer of a manager that is not the leader to a request
// that only the leader can serve. It is of kind api.Unavailable.
type NotLeaderError struct {
	// Leader is host:port of the leader's control listener, "" when there is none.
	Leader string
}

// Error says where the leader is.
func (e *NotLeaderError) Error() string {
	if e.Leader == "" {
		return "the cluster has no leader at the moment"
	}
	return "this manager is not the leader, which is at " + e.Leader
}

// Unwrap gives the error its kind.
func (e *NotLeaderError) Unwrap() error { return &api.Error{Kind: api.Unavailable, Message: e.Error()} }

// NotSentError says that no connection could be made, so that nothing of the
// request has reached the manager: asking another one cannot do it twice. It is
// of kind api.Unavailable.
type NotSentError struct{ cause error }

// Error says which manager could not be reached and why.
func (e *NotSentError) Error() string { return e.cause.Error() }

// Unwrap gives the error its kind.
func (e *NotSentError) Unwrap() error { return e.cause }

// errorBody is how an error travels.
type errorBody struct {
	Kind    api.ErrorKind `json:"kind"`
	Message string        `json:"message"`
	// NotLeader tells a NotLeaderError from other errors, Leader is its field.
	NotLeader bool   `json:"notLeader,omitempty"`
	Leader    string `json:"leader,omitempty"`
}

// statusOf maps kinds as the Docker API does.
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

// encodeError makes the body and status of an error. An error without an
// api.Error in its chain travels as api.Internal.
func encodeError(err error) (int, errorBody) {
	body := errorBody{Kind: api.KindOf(err), Message: err.Error()}
	var notLeader *NotLeaderError
	if errors.As(err, &notLeader) {
		body.NotLeader, body.Leader = true, notLeader.Leader
	}
	status, ok := statusOf[body.Kind]
	if !ok {
		status = http.StatusInternalServerError
	}
	return status, body
}

// decodeError makes the error out of a refusal.
func decodeError(what string, res *http.Response) error {
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxOpenBody))
	if err != nil {
		return unavailable(what, err)
	}
	var body errorBody
	if json.Unmarshal(raw, &body) != nil || body.Kind == "" {
		return fmt.Errorf("%s: status %s with an unknown body", what, res.Status)
	}
	return body.err()
}

func (b errorBody) err() error {
	if b.NotLeader {
		return &NotLeaderError{Leader: b.Leader}
	}
	return &api.Error{Kind: b.Kind, Message: b.Message}
}

// unavailable wraps what went wrong between the nodes. Both the kind and the
// chain are kept, so that a caller can still see its own context's end.
func unavailable(what string, err error) error {
	return &transportError{what, err}
}

type transportError struct {
	what string
	err  error
}

func (e *transportError) Error() string { return e.what + ": " + e.err.Error() }

func (e *transportError) Unwrap() []error {
	return []error{&api.Error{Kind: api.Unavailable, Message: e.Error()}, e.err}
}
