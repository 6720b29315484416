package runtime

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"

	"shoal/control/api"
)

// NoSuchImage is the error for an image that is not here. Its text is Docker's;
// it is errdefs.ErrNotFound and api.NotFound.
func NoSuchImage(ref string) error {
	return classify(api.NotFound, errdefs.ErrNotFound, "No such image: %s", ref)
}

// NotToBeHad is NoSuchImage for an image that could not be pulled either, with
// the reason in short behind Docker's words.
func NotToBeHad(ref string, pull error) error {
	return classify(api.NotFound, errdefs.ErrNotFound, "No such image: %s: %s", ref, inShort(pull))
}

// NoSuchContainer is the error for a container that is not known.
func NoSuchContainer(id string) error {
	return classify(api.NotFound, errdefs.ErrNotFound, "No such container: %s", id)
}

// PullDenied is the error for a repository that the registry does not show.
func PullDenied(repository string) error {
	return pullError(api.NotFound, errdefs.ErrNotFound, "access denied, the repository does not exist or needs credentials",
		"pull access denied for %s, repository does not exist or may require 'docker login': denied: requested access to the resource is denied", repository)
}

// NoSuchManifest is the error for a repository that lacks the tag or digest.
func NoSuchManifest(ref string) error {
	return pullError(api.NotFound, errdefs.ErrNotFound, "manifest unknown", "manifest for %s not found: manifest unknown: manifest unknown", ref)
}

// NoPlatform is the error for an image that is not made for such a machine.
func NoPlatform(ref, platform string) error {
	why := "no matching manifest for " + platform
	return pullError(api.NotFound, errdefs.ErrNotFound, why, "pull %s: %s", ref, why)
}

// PullFailed is the error for a pull that came to nothing in any other way. It
// wraps its cause, and says why in its place.
func PullFailed(ref, why string, cause error) error {
	return &pull{&classified{text: fmt.Sprintf("pull %s: %s", ref, why), chain: []error{cause}}, why}
}

// Exists is the error for a container id that is taken.
func Exists(id string) error {
	return classify(api.Conflict, errdefs.ErrAlreadyExists, "container %s exists already", id)
}

// NotRunning is the error for signalling a container that does not run, or
// starting one that has ended.
func NotRunning(id string) error {
	return classify(api.Conflict, errdefs.ErrFailedPrecondition, "container %s is not running", id)
}

// Runs is the error for what can only be done to a container that does not run.
func Runs(id string) error {
	return classify(api.Conflict, errdefs.ErrFailedPrecondition, "container %s is running", id)
}

// ImageInUse is the error for removing an image that a container was made from.
func ImageInUse(ref, container string) error {
	return classify(api.Conflict, errdefs.ErrFailedPrecondition,
		"conflict: unable to remove repository reference %q (must force) - container %.12s is using its referenced image", ref, container)
}

// Invalid is the error for a container that cannot be made as it is wished.
func Invalid(format string, args ...any) error {
	return classify(api.Invalid, errdefs.ErrInvalidArgument, format, args...)
}

// classify makes an error with two classes and one text: the API's kind for the
// border, errdefs' sentinel for callers in the house.
func classify(kind api.ErrorKind, class error, format string, args ...any) error {
	return &classified{text: fmt.Sprintf(format, args...), chain: []error{api.Errorf(kind, format, args...), class}}
}

type classified struct {
	text  string
	chain []error
}

// Error returns the text without its classes.
func (c *classified) Error() string { return c.text }

// Unwrap returns the API's error and errdefs' sentinel.
func (c *classified) Unwrap() []error { return c.chain }

// pull is a pull's error, which says why in Docker's words and in short.
type pull struct {
	error
	short string
}

func pullError(kind api.ErrorKind, class error, short, format string, args ...any) error {
	return &pull{classify(kind, class, format, args...), short}
}

// Unwrap returns the error without its short form.
func (p *pull) Unwrap() error { return p.error }

// maxReason bounds, in bytes, what others say in an error of ours.
const maxReason = 300

// inShort is why a pull failed, on one line.
func inShort(err error) string {
	text := err.Error()
	if p := (*pull)(nil); errors.As(err, &p) {
		text = p.short
	}
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "…"
	}
	return text
}
