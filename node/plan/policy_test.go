package plan

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"shoal/control/api"
	"shoal/dataplane/lb"
	"shoal/overlay/endpoint"
)

func TestPolicyOfABalancer(t *testing.T) {
	here, there := rec("n1", "t1", "web", 1, "net", "10.0.1.3"), rec("n2", "t2", "web", 2, "net", "10.0.1.4")
	beyond := rec("n3", "t3", "web", 3, "net", "10.0.1.5")
	all := []endpoint.Record{here, there, beyond}
	tests := []struct {
		name    string
		labels  map[string]string
		records []endpoint.Record
		silent  string
		want    []string
	}{
		{"nothing is said", nil, all, "", []string{"10.0.1.3", "10.0.1.4", "10.0.1.5"}},
		{"the nearest first", map[string]string{api.LabelPrefer: "local"}, all, "", []string{"10.0.1.3", "10.0.1.4 draining", "10.0.1.5 draining"}},
		{"none is near", map[string]string{api.LabelPrefer: "local"}, all[1:], "", []string{"10.0.1.4", "10.0.1.5"}},
		{"the near one drains", map[string]string{api.LabelPrefer: "local"}, []endpoint.Record{draining(here), there}, "",
			[]string{"10.0.1.3 draining", "10.0.1.4"}},
		{"silence with a near one left", map[string]string{api.LabelPrefer: "local"}, all, "n2", []string{"10.0.1.3", "10.0.1.5 draining"}},
		{"silence where the near one drains", map[string]string{api.LabelPrefer: "local"}, []endpoint.Record{draining(here), there}, "n2",
			[]string{"10.0.1.3 draining", "10.0.1.4"}},
		{"weights of nodes", map[string]string{api.LabelAlgorithm: "wrr"}, all, "", []string{"10.0.1.3", "10.0.1.4 weight 5", "10.0.1.5"}},
		{"weights of the service", map[string]string{api.LabelAlgorithm: "wrr", api.LabelWeight: "host2=2,n3=7"}, all, "",
			[]string{"10.0.1.3", "10.0.1.4 weight 2", "10.0.1.5 weight 7"}},
		{"weights that nobody heeds", map[string]string{api.LabelWeight: "host2=2,n3=7"}, all, "", []string{"10.0.1.3", "10.0.1.4", "10.0.1.5"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := world(tt.records...)
			in.Services[0].Spec.Labels = tt.labels
			in.Nodes = []*api.Node{nodeIn("n1", "ready"), nodeIn("n2", "ready"), nodeIn("n3", "ready")}
			in.Nodes[1].Description.Hostname = "host2"
			in.Nodes[1].Spec.Labels = map[string]string{api.LabelWeight: "5"}
			in.Nodes[2].Spec.Labels = map[string]string{api.LabelWeight: "heavy"}
			in.Silent = map[string]bool{tt.silent: true}
			var got []string
			for _, b := range Compile(in).Balancers[0].Services[0].Backends {
				got = append(got, fmt.Sprint(b))
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("balanced over %q, want %q", got, tt.want)
			}
		})
	}
}

func TestStickyService(t *testing.T) {
	in := world(rec("n1", "t1", "web", 1, "net", "10.0.1.3"))
	in.Services[0].Spec.Labels = map[string]string{api.LabelSticky: "90s", api.LabelAlgorithm: "lc"}
	if s := Compile(in).Balancers[0].Services[0]; s.Sticky != 90*time.Second || s.Algorithm != lb.LeastConn {
		t.Errorf("balanced as %+v", s)
	}
}
