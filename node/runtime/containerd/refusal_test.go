package containerd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/platforms"
	"github.com/containerd/containerd/remotes/docker"
	remoteerrors "github.com/containerd/containerd/remotes/errors"

	"shoal/node/runtime"
)

// asked wraps an error as containerd's resolver and net/http do.
func asked(err error) error {
	return fmt.Errorf("failed to resolve reference %q: failed to do request: %w", "reg.test/x:1", &url.Error{Op: "Head", URL: "https://reg.test/v2/x/manifests/1", Err: err})
}

// answered is a registry's answer with a status that nobody expects.
func answered(status string, code int) error {
	return fmt.Errorf("failed to resolve: %w", remoteerrors.ErrUnexpectedStatus{Status: status, StatusCode: code, RequestMethod: "HEAD", RequestURL: "https://reg.test/v2"})
}

func TestPullErrors(t *testing.T) {
	const denied = "pull access denied for reg.test/x, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"
	const deniedShort = "access denied, the repository does not exist or needs credentials"
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connect: connection refused")}
	lookup := &net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{Err: "no such host", Name: "reg.test", IsNotFound: true}}
	for name, c := range map[string]struct {
		err         error
		long, short string
	}{
		"refused":   {asked(refused), "", "registry reg.test cannot be reached: dial tcp: connect: connection refused"},
		"no name":   {asked(lookup), "", "registry reg.test cannot be reached: dial tcp: lookup reg.test: no such host"},
		"slow":      {asked(context.DeadlineExceeded), "", "registry reg.test does not answer: context deadline exceeded"},
		"no TLS":    {asked(errors.New("http: server gave HTTP response to HTTPS client")), "", "registry reg.test: http: server gave HTTP response to HTTPS client"},
		"too often": {answered("429 Too Many Requests", 429), "", "registry reg.test answers 429 Too Many Requests"},
		"shut":      {answered("403 Forbidden", 403), denied, deniedShort},
		"no login":  {fmt.Errorf("x: %w", docker.ErrInvalidAuthorization), denied, deniedShort},
		"no tag":    {fmt.Errorf("reg.test/x:1: %w", errdefs.ErrNotFound), "manifest for reg.test/x:1 not found: manifest unknown: manifest unknown", "manifest unknown"},
		"platform":  {fmt.Errorf("no match for platform in manifest sha256:12: %w", errdefs.ErrNotFound), "", "no matching manifest for " + platforms.DefaultString()},
		"disk":      {errors.New("no space left on device"), "", "no space left on device"},
	} {
		long := cmp.Or(c.long, "pull reg.test/x:1: "+c.short)
		err := pullError("reg.test/x:1", c.err)
		if err.Error() != long {
			t.Errorf("%s: %q, want %q", name, err, long)
		}
		if got := runtime.NotToBeHad("reg.test/x:1", err).Error(); got != "No such image: reg.test/x:1: "+c.short {
			t.Errorf("%s: %q, want ... %q", name, got, c.short)
		}
	}
	if err := pullError("reg.test/x:1", asked(context.Canceled)); !errors.Is(err, context.Canceled) {
		t.Errorf("broken off: %v", err)
	}
}

// The errors that containerd's resolver makes of a registry's answers lead to the
// same words.
func TestPullErrorsOfResolver(t *testing.T) {
	code := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if code == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		}
		w.WriteHeader(code)
	}))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	g := newRegistries(nil)
	defer g.client.CloseIdleConnections()
	reason := func(ref string) string {
		resolver, err := g.resolver("")
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = resolver.Resolve(t.Context(), ref)
		return runtime.NotToBeHad("x", pullError(ref, err)).Error()
	}
	for status, want := range map[int]string{
		http.StatusUnauthorized:       "access denied, the repository does not exist or needs credentials",
		http.StatusForbidden:          "access denied, the repository does not exist or needs credentials",
		http.StatusNotFound:           "manifest unknown",
		http.StatusTooManyRequests:    "registry " + host + " answers 429 Too Many Requests",
		http.StatusServiceUnavailable: "registry " + host + " answers 503 Service Unavailable",
	} {
		code = status
		if got := reason(host + "/x:1"); got != "No such image: x: "+want {
			t.Errorf("%d: %q, want %q", status, got, want)
		}
	}
	if got, want := reason("127.0.0.1:1/x:1"), "No such image: x: registry 127.0.0.1:1 cannot be reached: dial tcp 127.0.0.1:1: "; !strings.HasPrefix(got, want) {
		t.Errorf("nobody there: %q, want %q", got, want)
	}
}
