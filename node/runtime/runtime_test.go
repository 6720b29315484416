package runtime

import (
	"errors"
	"fmt"
	"testing"

	"github.com/containerd/errdefs"

	"shoal/control/api"
)

func TestErrorsHaveTwoClasses(t *testing.T) {
	for text, test := range map[string]struct {
		err   error
		class error
		kind  api.ErrorKind
	}{
		"No such image: nope:latest":                      {NoSuchImage("nope:latest"), errdefs.ErrNotFound, api.NotFound},
		"No such container: x":                            {NoSuchContainer("x"), errdefs.ErrNotFound, api.NotFound},
		"container x exists already":                      {Exists("x"), errdefs.ErrAlreadyExists, api.Conflict},
		"container x is not running":                      {NotRunning("x"), errdefs.ErrFailedPrecondition, api.Conflict},
		"No such image: nope:1: manifest unknown":         {NotToBeHad("nope:1", NoSuchManifest("nope:1")), errdefs.ErrNotFound, api.NotFound},
		"No such image: nope:1: odd and long":             {NotToBeHad("nope:1", fmt.Errorf("odd\nand long")), errdefs.ErrNotFound, api.NotFound},
		"No such image: nope:1: slow":                     {NotToBeHad("nope:1", fmt.Errorf("at last: %w", PullFailed("nope:1", "slow", errdefs.ErrUnavailable))), errdefs.ErrNotFound, api.NotFound},
		"pull nope:1: no matching manifest for linux/arm": {NoPlatform("nope:1", "linux/arm"), errdefs.ErrNotFound, api.NotFound},
		"pull nope:1: slow":                               {PullFailed("nope:1", "slow", errdefs.ErrUnavailable), errdefs.ErrUnavailable, api.Internal},
		"bad thing":                                       {Invalid("bad %s", "thing"), errdefs.ErrInvalidArgument, api.Invalid},
	} {
		wrapped := fmt.Errorf("wrapped: %w", test.err)
		if test.err.Error() != text || !errors.Is(wrapped, test.class) || api.KindOf(wrapped) != test.kind {
			t.Errorf("%q: %v %s", text, test.err, api.KindOf(wrapped))
		}
	}
}

func TestReferences(t *testing.T) {
	for ref, want := range map[string][2]string{
		"web":                 {"docker.io/library/web:latest", "web:latest"},
		"shoal/whoami:v2":     {"docker.io/shoal/whoami:v2", "shoal/whoami:v2"},
		"r.test:5000/a/b":     {"r.test:5000/a/b:latest", "r.test:5000/a/b:latest"},
		"docker.io/library/x": {"docker.io/library/x:latest", "x:latest"},
	} {
		full, err := NormalizeRef(ref)
		if err != nil || full != want[0] || FamiliarRef(ref) != want[1] || FamiliarRef(full) != want[1] || Pinned(ref) {
			t.Errorf("%s: %s %s %v", ref, full, FamiliarRef(ref), err)
		}
	}
	const digest = "@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	if full, err := NormalizeRef("web:1" + digest); err != nil || full != "docker.io/library/web"+digest || !Pinned("web:1"+digest) {
		t.Errorf("pinned: %s %v", full, err)
	}
	for _, bad := range []string{"", "UPPER", "a b", ":x"} {
		if _, err := NormalizeRef(bad); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzNormalizeRef(f *testing.F) {
	f.Add("web:1")
	f.Fuzz(func(t *testing.T, ref string) {
		full, err := NormalizeRef(ref)
		if err != nil {
			return
		}
		if again, err := NormalizeRef(full); err != nil || again != full {
			t.Errorf("%q: %q then %q %v", ref, full, again, err)
		}
	})
}
