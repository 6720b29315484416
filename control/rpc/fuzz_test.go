package rpc

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func FuzzErrorBody(f *testing.F) {
	f.Add(`{"kind":"forbidden","message":"x"}`)
	f.Add(`{"kind":"unavailable","notLeader":true,"leader":"a:1"}`)
	f.Fuzz(func(t *testing.T, body string) {
		res := &http.Response{Status: "500", Body: io.NopCloser(strings.NewReader(body))}
		if decodeError("call", res) == nil {
			t.Error("a refusal became a success")
		}
	})
}

func FuzzStream(f *testing.F) {
	f.Add("1\n2\n")
	f.Add("{}\n\n")
	f.Fuzz(func(t *testing.T, body string) {
		s := newStream("stream", io.NopCloser(strings.NewReader(body)))
		for range strings.Count(body, "\n") + 2 {
			var v any
			if err := s.Next(&v); err == io.EOF {
				return
			}
		}
		t.Error("the stream does not end")
	})
}
