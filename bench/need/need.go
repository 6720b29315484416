// Package need lets a test say which kernel feature or program it cannot do
// without. A test may be skipped only through this package, and a lane that
// lists the feature in SHOAL_REQUIRE turns the skip into a failure.
package need

import (
	"os"
	"strings"
	"testing"
)

// Feature ends the test as skipped when have is not nil, which must say why the
// feature is missing, or as failed when SHOAL_REQUIRE (comma separated) lists it.
func Feature(t testing.TB, name string, have error) {
	t.Helper()
	if have == nil {
		return
	}
	for _, required := range strings.Split(os.Getenv("SHOAL_REQUIRE"), ",") {
		if required == name {
			t.Fatalf("the lane requires %s: %v", name, have)
		}
	}
	t.Skipf("needs %s: %v", name, have)
}
