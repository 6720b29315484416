package constraint

import (
	"testing"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

func TestMet(t *testing.T) {
	n := &api.Node{}
	n.ID, n.Description.Hostname, n.Spec.Role = "id1", "h1", swarm.NodeRoleManager
	n.Status.Addr = "10.77.0.1"
	n.Description.Platform = swarm.Platform{OS: "linux", Architecture: "x86_64"}
	n.Spec.Labels = map[string]string{"Zone": "East"}
	n.Description.Engine.Labels = map[string]string{"gpu": "yes"}
	rows := []struct {
		expression string
		want       bool
	}{
		{"node.id == id1", true}, {"node.id!=id1", false}, {"node.hostname==H1", true},
		{"node.role == manager", true}, {"node.role != manager", false}, {"node.role==worker", false},
		{"node.ip == 10.77.0.1", true}, {"node.ip == 10.77.0.0/24", true}, {"node.ip != 10.77.0.0/24", false}, {"node.ip == nonsense", false},
		{"node.platform.os == Linux", true}, {"node.platform.arch == x86_64", true}, {"node.platform.arch == amd64", true}, {"node.platform.arch != arm64", true},
		{"node.labels.Zone == east", true}, {"node.labels.zone == east", false}, {"node.labels.none != x", true}, {"node.labels.none == x", false},
		{"engine.labels.gpu == YES", true}, {"node.unknown != x", false},
	}
	for _, r := range rows {
		if got := Met([]string{r.expression}, n); got != r.want {
			t.Errorf("%s: %t", r.expression, got)
		}
	}
	if !Met(nil, n) {
		t.Error("no constraint is not met")
	}
}

func TestParseErrors(t *testing.T) {
	rows := []struct{ expression, want string }{
		{"node.role", "constraint expected one operator from ==, !="},
		{"node.role = manager", "constraint expected one operator from ==, !="},
		{"~node == x", "key '~node' is invalid"},
		{"node.role == ", "value '' is invalid"},
	}
	for _, r := range rows {
		if _, err := Parse([]string{r.expression}); err == nil || err.Error() != r.want || api.KindOf(err) != api.Invalid {
			t.Errorf("%s: %v", r.expression, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("node.role == manager")
	f.Add("a!=b==c")
	f.Fuzz(func(t *testing.T, expression string) {
		parsed, err := Parse([]string{expression})
		if err == nil {
			Match(parsed, &api.Node{})
		}
	})
}
