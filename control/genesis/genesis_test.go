package genesis

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

func founder() Founder {
	return Founder{ClusterID: "c", NodeID: "n", IngressID: "i", Report: api.NodeReport{Addr: "10.77.0.1", DataPathAddr: "10.77.0.1", RaftAddr: "10.77.0.1:2377"}}
}

func TestStateHasDefaults(t *testing.T) {
	ops, err := State(swarm.InitRequest{}, founder())
	if err != nil {
		t.Fatal(err)
	}
	c := ops[0].Object.(*api.Cluster)
	if c.SubnetSize != 24 || c.DataPathPort != 4789 || c.Spec.Name != "default" || *c.Spec.Orchestration.TaskHistoryRetentionLimit != 5 ||
		len(c.DefaultAddrPool) != 1 || c.DefaultAddrPool[0] != DefaultAddrPool || c.NextNodeNumber != 2 {
		t.Errorf("cluster: %+v", c)
	}
	n := ops[1].Object.(*api.Node)
	if n.Number != 1 || n.Spec.Role != swarm.NodeRoleManager || n.Spec.Availability != swarm.NodeAvailabilityActive || n.Status.State != swarm.NodeStateReady {
		t.Errorf("node: %+v", n)
	}
	if net := ops[2].Object.(*api.Network); !net.Spec.Ingress || !net.Spec.IPv6Enabled || net.Spec.Name != "ingress" {
		t.Errorf("network: %+v", net)
	}
}

func TestStateRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*swarm.InitRequest)
		want   string
	}{
		"name":      {func(r *swarm.InitRequest) { r.Spec.Name = "x" }, `must be named "default"`},
		"port low":  {func(r *swarm.InitRequest) { r.DataPathPort = 80 }, "1024-49151"},
		"port high": {func(r *swarm.InitRequest) { r.DataPathPort = 60000 }, "1024-49151"},
		"pool":      {func(r *swarm.InitRequest) { r.DefaultAddrPool = []netip.Prefix{netip.MustParsePrefix("fd00::/80")} }, "too small"},
		"size": {func(r *swarm.InitRequest) {
			r.DefaultAddrPool = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
			r.SubnetSize = 12
		}, "does not fit"},
	} {
		t.Run(name, func(t *testing.T) {
			var req swarm.InitRequest
			c.change(&req)
			_, err := State(req, founder())
			if err == nil || !strings.Contains(err.Error(), c.want) || api.KindOf(err) != api.Invalid {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
}
