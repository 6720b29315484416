package main

import (
	"errors"
	"net/http"

	"github.com/docker/cli/cli"

	"shoal/dataplane/probe"
	"shoal/dataplane/trace"
	"shoal/node/netview"
)

// The exit codes of trace, apart from 0 and usageError. Scripts rely on them.
const (
	notDelivered = 1
	noAnswer     = 2
)

// traceResult turns the answer to a trace into what the command ends with. The error
// of a packet that is not delivered has no text, for the answer was printed.
func traceResult(r netview.Route, err error) error {
	var no refusal
	switch {
	case errors.As(err, &no) && no.status == http.StatusNotFound:
		return cli.StatusError{Cause: err, StatusCode: notDelivered}
	case err != nil:
		return cli.StatusError{Cause: err, StatusCode: noAnswer}
	case !delivered(r):
		return cli.StatusError{StatusCode: notDelivered}
	}
	return nil
}

// delivered says whether the packet arrives: by the real one where there is one, else
// by every way it may take.
func delivered(r netview.Route) bool {
	if l := r.Live; l != nil {
		arrived := l.Outcome == string(probe.Connected) || l.Outcome == string(probe.Answered)
		return l.Differs == "" && arrived
	}
	for _, p := range r.Paths {
		if p.Verdict != trace.Delivered {
			return false
		}
	}
	return len(r.Paths) > 0
}
