package wire

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"shoal/control/api"
)

// Version is a version of the Engine API, such as 1.41.
type Version struct{ Major, Minor int }

// The versions that are served. Clients use the lower of their own highest and
// Max; below 1.30 the client expects the server to do registry work it no
// longer does itself.
var (
	Min = Version{1, 24}
	Max = Version{1, 47}
)

// maxVersionText bounds what ParseVersion looks at.
const maxVersionText = 16

// ParseVersion reads "1.41", without a leading v. A major or minor above 9999
// is refused.
func ParseVersion(text string) (Version, error) {
	major, minor, ok := strings.Cut(text, ".")
	if !ok || len(text) > maxVersionText {
		return Version{}, api.Errorf(api.Invalid, "invalid API version %q", clip(text))
	}
	a, errA := versionPart(major)
	b, errB := versionPart(minor)
	if errA != nil || errB != nil {
		return Version{}, api.Errorf(api.Invalid, "invalid API version %q", clip(text))
	}
	return Version{a, b}, nil
}

func versionPart(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n > 9999 || strconv.FormatUint(n, 10) != text {
		return 0, strconv.ErrSyntax
	}
	return int(n), nil
}

func clip(text string) string {
	if len(text) > maxVersionText {
		return text[:maxVersionText] + "…"
	}
	return text
}

// String writes the version as a client sends it, without a leading v.
func (v Version) String() string {
	return strconv.Itoa(v.Major) + "." + strconv.Itoa(v.Minor)
}

// Less says whether v is older than o.
func (v Version) Less(o Version) bool {
	return v.Major < o.Major || v.Major == o.Major && v.Minor < o.Minor
}

// check says in Docker's words why a version is not served.
func (v Version) check() error {
	if Max.Less(v) {
		return api.Errorf(api.Invalid, "client version %s is too new. Maximum supported API version is %s", v, Max)
	}
	if v.Less(Min) {
		return api.Errorf(api.Invalid,
			"client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", v, Min)
	}
	return nil
}

type versionKey struct{}

// VersionOf returns the version that the request was made for: the one of its
// path, or Max when the path has none.
func VersionOf(r *http.Request) Version {
	if v, ok := r.Context().Value(versionKey{}).(Version); ok {
		return v
	}
	return Max
}

// WithVersion returns the request as one made for v.
func WithVersion(r *http.Request, v Version) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), versionKey{}, v))
}

// splitVersion cuts "/v1.41" off the front of a path. Without such a prefix it
// returns the path and Max.
func splitVersion(path string) (string, Version, error) {
	if len(path) < 3 || !strings.HasPrefix(path, "/v") || path[2] < '0' || path[2] > '9' {
		return path, Max, nil
	}
	text, rest, ok := strings.Cut(path[2:], "/")
	if !ok {
		return path, Max, nil
	}
	v, err := ParseVersion(text)
	if err != nil {
		// Not a version after all, so a route nobody knows.
		return path, Max, nil
	}
	return "/" + rest, v, v.check()
}
