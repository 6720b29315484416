package containerd

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/containerd/containerd/remotes"
	"github.com/containerd/containerd/remotes/docker"
	"github.com/distribution/reference"

	"shoal/node/runtime"
)

const (
	// dialTimeout bounds how long a registry may take to accept a connection.
	dialTimeout = 2 * time.Second
	// answerTimeout bounds how long a registry may take to begin an answer.
	answerTimeout = 15 * time.Second
	// downTime is how long a registry that could not be reached is not asked
	// for images that are present.
	downTime = 30 * time.Second
	// maxDown bounds how many unreachable registries are remembered.
	maxDown = 256
)

// registries knows how to speak to registries and which cannot be reached.
type registries struct {
	insecure []string
	client   *http.Client

	mu   sync.Mutex
	down map[string]time.Time
}

func newRegistries(insecure []string) *registries {
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: answerTimeout,
		IdleConnTimeout:       10 * time.Second,
		MaxIdleConns:          8,
	}
	return &registries{insecure: insecure, client: &http.Client{Transport: transport}, down: map[string]time.Time{}}
}

// resolver speaks to the registry of one pull with the given credentials.
func (g *registries) resolver(auth string) (remotes.Resolver, error) {
	credentials, err := decodeAuth(auth)
	if err != nil {
		return nil, err
	}
	authorizer := docker.NewDockerAuthorizer(docker.WithAuthClient(g.client), docker.WithAuthCreds(credentials))
	return docker.NewResolver(docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(
		docker.WithClient(g.client), docker.WithAuthorizer(authorizer), docker.WithPlainHTTP(g.plain),
	)}), nil
}

// plain reports whether a registry is spoken to without TLS.
func (g *registries) plain(host string) (bool, error) {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = host
	}
	if slices.Contains(g.insecure, host) || slices.Contains(g.insecure, name) {
		return true, nil
	}
	ip := net.ParseIP(name)
	return name == "localhost" || ip != nil && ip.IsLoopback(), nil
}

// decodeAuth reads the value of a registry auth header: base64url JSON.
func decodeAuth(auth string) (func(string) (string, string, error), error) {
	var config struct{ Username, Password, IdentityToken string }
	if auth != "" {
		raw, err := base64.URLEncoding.DecodeString(auth)
		if err != nil {
			raw, err = base64.RawURLEncoding.DecodeString(auth)
		}
		if err != nil {
			return nil, runtime.Invalid("registry auth is not base64url: %v", err)
		}
		if err := json.Unmarshal(raw, &config); err != nil {
			return nil, runtime.Invalid("registry auth is not JSON: %v", err)
		}
	}
	return func(string) (string, string, error) {
		if config.IdentityToken != "" {
			return "", config.IdentityToken, nil
		}
		return config.Username, config.Password, nil
	}, nil
}

// registryOf is the host of a normalised reference.
func registryOf(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return ""
	}
	return reference.Domain(named)
}

// isDown reports whether the registry could not be reached when last asked, and
// whether that was long enough ago to ask again.
func (g *registries) isDown(host string) (down, stale bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	since, down := g.down[host]
	return down, down && time.Since(since) > downTime
}

// note remembers how asking a registry went.
func (g *registries) note(host string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	var network net.Error
	if err == nil || !errors.As(err, &network) {
		delete(g.down, host)
		return
	}
	if len(g.down) >= maxDown {
		clear(g.down)
	}
	g.down[host] = time.Now()
}

// postpone puts the next question to an unreachable registry off.
func (g *registries) postpone(host string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.down[host] = time.Now()
}
