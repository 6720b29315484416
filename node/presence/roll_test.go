package presence

import (
	"slices"
	"strings"
	"testing"

	"shoal/control/api"
	"shoal/node/plan"
)

// TestAdmit: nobody before the managers have told of a node, then those that they know.
func TestAdmit(t *testing.T) {
	p := &Presence{cfg: Config{Self: plan.Self{ID: "self"}}}
	refused := func(id, why string) {
		t.Helper()
		err := p.Admit(id)
		if api.KindOf(err) != api.Forbidden || !strings.Contains(err.Error(), id) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", id, err)
		}
	}
	refused("a", "this node (self) has not been told yet")
	p.enrol(map[string]*api.Node{"self": {}, "a": {}})
	for _, id := range []string{"a", "self"} {
		if err := p.Admit(id); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	refused("b", "is not in this cluster")
	if gone := p.enrol(map[string]*api.Node{"self": {}}); !slices.Equal(gone, []string{"a"}) {
		t.Errorf("gone are %q: the managers do not name a any more", gone)
	}
	refused("a", "it was removed")
}
