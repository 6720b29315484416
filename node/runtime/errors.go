package runtime

import (
	"fmt"

	"github.com/containerd/errdefs"

	"shoal/control/api"
)

// NoSuchImage is the error for an image that is neither here nor to be had. Its
// text is Docker's; it is errdefs.ErrNotFound and api.NotFound.
func NoSuchImage(ref string) error {
	return classify(api.NotFound, errdefs.ErrNotFound, "No such image: %s", ref)
}

// NoSuchContainer is the error for a container that is not known.
func NoSuchContainer(id string) error {
	return classify(api.NotFound, errdefs.ErrNotFound, "No such container: %s", id)
}

// PullDenied is the error for a repository that the registry does not show.
func PullDenied(repository string) error {
	return classify(api.NotFound, errdefs.ErrNotFound,
		"pull access denied for %s, repository does not exist or may require 'docker login': denied: requested access to the resource is denied", repository)
}

// NoSuchManifest is the error for a repository that lacks the tag or digest.
func NoSuchManifest(ref string) error {
	return classify(api.NotFound, errdefs.ErrNotFound, "manifest for %s not found: manifest unknown: manifest unknown", ref)
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
