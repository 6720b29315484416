package containerd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/containerd/containerd/errdefs"
	"github.com/containerd/containerd/platforms"
	"github.com/containerd/containerd/remotes/docker"
	remoteerrors "github.com/containerd/containerd/remotes/errors"
	"github.com/distribution/reference"

	"shoal/node/runtime"
)

// pullError says in Docker's words why an image cannot be had.
func pullError(name string, err error) error {
	named, parseErr := reference.ParseNormalizedNamed(name)
	if parseErr != nil {
		return fmt.Errorf("pull %s: %w", name, err)
	}
	ref, text := runtime.FamiliarRef(name), err.Error()
	switch {
	case errors.Is(err, docker.ErrInvalidAuthorization), strings.Contains(text, "insufficient_scope"),
		strings.Contains(text, "pull access denied"), forbidden(err):
		return runtime.PullDenied(reference.FamiliarName(named))
	case strings.Contains(text, "no match for platform"):
		return runtime.NoPlatform(ref, platforms.DefaultString())
	case errdefs.IsNotFound(err):
		return runtime.NoSuchManifest(ref)
	}
	return runtime.PullFailed(ref, cmp.Or(registryFault(reference.Domain(named), err), text), err)
}

// forbidden reports whether a registry has turned the credentials down.
func forbidden(err error) bool {
	var answer remoteerrors.ErrUnexpectedStatus
	return errors.As(err, &answer) && (answer.StatusCode == 401 || answer.StatusCode == 403)
}

// registryFault says what is wrong with a registry, without the address of the
// request; empty when it is not the registry's fault.
func registryFault(host string, err error) string {
	var (
		answer  remoteerrors.ErrUnexpectedStatus
		request *url.Error
		dial    *net.OpError
	)
	switch {
	case errors.Is(err, context.Canceled):
		return ""
	case errors.As(err, &answer):
		return fmt.Sprintf("registry %s answers %s", host, answer.Status)
	case errors.As(err, &dial):
		return fmt.Sprintf("registry %s cannot be reached: %v", host, dial)
	case errors.As(err, &request) && request.Timeout():
		return fmt.Sprintf("registry %s does not answer: %v", host, request.Err)
	case errors.As(err, &request):
		return fmt.Sprintf("registry %s: %v", host, request.Err)
	}
	return ""
}
