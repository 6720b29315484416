package dockerapi

import (
	"maps"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

func version(o api.Object) string { return strconv.FormatUint(o.ObjectMeta().Version.Index, 10) }

func labelled(labels map[string]string) func(*swarm.ServiceSpec) {
	return func(s *swarm.ServiceSpec) { s.Labels = labels }
}

func TestLabelRefusals(t *testing.T) {
	c := newManager(t)
	row := func(name, text string, changes ...func(*swarm.ServiceSpec)) refusal {
		return refusal{name, "POST", "/services/create", spec("x", changes...), 400, text}
	}
	worker := c.addNode("h2", swarm.NodeRoleWorker, swarm.NodeStateReady)
	c.refuses([]refusal{
		row("algorithm", `label shoal.lb.algorithm: unknown algorithm "best": choose one of rr, wrr, lc, wlc, sh, mh`,
			labelled(map[string]string{api.LabelAlgorithm: "best"})),
		row("unknown", "label shoal.foo: no such label: there are shoal.lb.algorithm, shoal.lb.weight, shoal.lb.sticky, shoal.lb.prefer, "+
			"shoal.mesh.source, shoal.publish.addr[.PORT[/PROTOCOL]], shoal.ready, shoal.ready.timeout", labelled(map[string]string{"shoal.foo": "1"})),
		row("ready", `label shoal.ready: unknown moment "soon": choose accepts or started`, labelled(map[string]string{api.LabelReady: "soon"})),
		row("bad address", `label shoal.publish.addr: "10.0.0" is neither an address nor the name of an interface`,
			labelled(map[string]string{api.LabelPublish: "10.0.0"})),
		row("another port", "label shoal.publish.addr.81: the service does not publish that port",
			publish(swarm.PortConfig{TargetPort: 80, PublishedPort: 8080}), labelled(map[string]string{api.LabelPublish + ".8080/tcp": "eth0", api.LabelPublish + ".81": "eth0"})),
		{"a node's weight", "POST", "/nodes/h2/update?version=" + version(worker), swarm.NodeSpec{Role: "worker", Availability: "active",
			Annotations: swarm.Annotations{Labels: map[string]string{api.LabelWeight: "0"}}}, 400, `label shoal.lb.weight: weight "0" is not a number from 1 to 65535`},
	})
}

// TestLabelsOfUpdates: an update is refused for what it brings, not for what the
// service had before there were rules.
func TestLabelsOfUpdates(t *testing.T) {
	had := map[string]string{"shoal.old": "1", api.LabelPrefer: "remote", api.LabelPublish + ".81": "eth0"}
	with := func(changes map[string]string) map[string]string {
		labels := maps.Clone(had)
		maps.Copy(labels, changes)
		maps.DeleteFunc(labels, func(_, value string) bool { return value == "gone" })
		return labels
	}
	for name, row := range map[string]struct {
		labels map[string]string
		want   string
	}{
		"same":           {with(nil), ""},
		"another change": {with(map[string]string{"tier": "front", api.LabelAlgorithm: "mh"}), ""},
		"one less":       {with(map[string]string{"shoal.old": "gone", api.LabelPublish + ".81": "gone"}), ""},
		"unknown added":  {with(map[string]string{"shoal.foo": "1"}), "label shoal.foo: no such label"},
		"changed":        {with(map[string]string{"shoal.old": "2"}), "label shoal.old: no such label"},
		"mended":         {with(map[string]string{api.LabelPrefer: "local"}), ""},
		"wrong again":    {with(map[string]string{api.LabelPrefer: "far"}), `label shoal.lb.prefer: unknown preference "far"`},
		"another port":   {with(map[string]string{api.LabelPublish + ".82": "eth0"}), "label shoal.publish.addr.82: the service does not publish that port"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newManager(t)
			id := c.create(spec("web"))
			s := c.store.View().Service(id).Copy()
			s.Spec.Labels = had
			c.commit(api.Update(s))
			before := c.store.View().ServiceByName("web")
			code, body := c.do("POST", "/services/web/update?version="+version(before), spec("web", labelled(row.labels)))
			if row.want == "" && code != 200 || row.want != "" && (code != 400 || !strings.Contains(body, strings.ReplaceAll(row.want, `"`, `\"`))) {
				t.Errorf("%d %s, want %q", code, body, row.want)
			}
		})
	}
}

// TestAlgorithmThatNodesCannotDo: what some node could not carry out is refused,
// by name and reason, unless it is nothing new or the node is down.
func TestAlgorithmThatNodesCannotDo(t *testing.T) {
	c := newManager(t)
	lc := labelled(map[string]string{api.LabelAlgorithm: "lc"})
	old := c.create(spec("old", lc)) // before any node has said what it can do
	unable := func(name string, state swarm.NodeState) {
		n := c.addNode(name, swarm.NodeRoleWorker, state).Copy()
		n.Capabilities = api.Capabilities{Kernel: "6.1", Balancer: "nft", Algorithms: []string{"rr", "wrr"},
			Missing: map[string]string{api.MissingAlgorithm("lc"): "nft does not count"}}
		if err := c.Propose(t.Context(), []api.Op{api.Status(n)}); err != nil {
			t.Fatal(err)
		}
	}
	unable("gone", swarm.NodeStateDown)
	c.create(spec("fine", lc))
	for _, name := range []string{"h2", "h3", "h4", "h5"} {
		unable(name, swarm.NodeStateReady)
	}
	code, body := c.do("POST", "/services/create", spec("new", lc))
	if want := `not every node can balance by \"lc\": h2, h3, h4 and 1 more (kernel 6.1): nft does not count"`; code != 400 || !strings.Contains(body, want) {
		t.Errorf("created: %d %s, want %q", code, body, want)
	}
	c.create(spec("weighted", labelled(map[string]string{api.LabelAlgorithm: "wrr"})))
	s := c.store.View().Service(old)
	if code, body := c.do("POST", "/services/old/update?version="+version(s), spec("old", lc, func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "other" })); code != 200 {
		t.Errorf("a service that balances so already: %d %s", code, body)
	}
	w := c.store.View().ServiceByName("weighted")
	if code, body := c.do("POST", "/services/weighted/update?version="+version(w), spec("weighted", lc)); code != 400 {
		t.Errorf("an update to it: %d %s", code, body)
	}
}

// TestGroupsOfNodes: each reason is said once, and the whole has a bound.
func TestGroupsOfNodes(t *testing.T) {
	for want, nodes := range map[string]map[string][]string{
		"h1: no":                 {": no": {"h1"}},
		"h1, h2, h3: no":         {": no": {"h3", "h1", "h2"}},
		"h2, h3: no; h1: never":  {": no": {"h3", "h2"}, ": never": {"h1"}},
		"a, b, c and 2 more: no": {": no": {"e", "d", "c", "b", "a"}},
		"f, g: 0; a: 1; b: 2; and 3 more for other reasons": {": 1": {"a"}, ": 2": {"b"}, ": 3": {"c"}, ": 4": {"d"}, ": 5": {"e"}, ": 0": {"f", "g"}},
	} {
		if got := inGroups(nodes); got != want {
			t.Errorf("says %q, want %q", got, want)
		}
	}
}
