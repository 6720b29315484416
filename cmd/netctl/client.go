package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/docker/cli/cli/command"
)

// requestTimeout bounds one question to the daemon.
const requestTimeout = 20 * time.Second

// get asks the daemon for one of Shoal's own views, which docker's client has no
// word for, on the same socket.
func get(ctx context.Context, docker command.Cli, path string, query url.Values, out any) error {
	return call(ctx, docker, http.MethodGet, path, query, out)
}

// call is get by another method.
func call(ctx context.Context, docker command.Cli, method, path string, query url.Values, out any) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	host := docker.DockerEndpoint().Host
	target, err := url.Parse(host)
	if err != nil {
		return fmt.Errorf("host %q: %w", host, err)
	}
	if target.Scheme != "unix" {
		return fmt.Errorf("host %s: this command talks to a node's own socket; give it as --host unix:///path", host)
	}
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", target.Path)
		},
	}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "http://shoal/shoal/"+path+"?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("cannot reach shoald at %s: %w", host, err)
	}
	defer resp.Body.Close()
	return decode(resp, out)
}

func decode(resp *http.Response, out any) error {
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		no := refusal{status: resp.StatusCode}
		if json.Unmarshal(body, &no) != nil || no.Message == "" {
			no.Message = "shoald answered " + resp.Status
		}
		return no
	}
	return json.Unmarshal(body, out)
}

// refusal is the daemon's no to a question.
type refusal struct {
	Message string
	status  int // of HTTP
}

func (r refusal) Error() string { return r.Message }
