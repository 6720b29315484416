//go:build lab

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
	"shoal/bench/lab/labtest"
)

// The lab of all tests:
//
//	 this machine, 10.80.0.254            asks the published ports
//	      |
//	------+------- br0 in se2e-lan -------------------------
//	      |                    |                    |
//	 se2e-h1              se2e-h2              se2e-h3        namespaces, one shoald each,
//	 10.80.0.1            10.80.0.2            10.80.0.3      all three managers
//	  |  mesh:            :82xx                    |
//	  |  ingress overlay  10.0.0.0/24 VXLAN        |
//	  |  test's overlay   10.0.n.0/24 VXLAN        |
//	 task task           task task            task task      network namespaces of their own,
//	                                                         resolver 127.0.0.11, VIPs balanced inside
//
// TestLab brings it up once; its tests follow each other, the gentle ones first,
// and each leaves the lab as it found it. At the end nothing may be left.
func TestLab(t *testing.T) {
	l := labtest.Up(t, lab.Config{
		Dir: "/run/shoal-e2e", Prefix: "se2e", Subnet: "10.80.0.0/24", DaemonFlags: []string{"--resolv-conf", "/run/shoal-e2e/" + resolvConf},
	}, "whoami.tar")
	for _, test := range []struct {
		name string
		run  func(*world)
	}{
		{"Mesh", mesh},
		{"Names", names},
		{"Resolvers", resolvers},
		{"VIPSourceAddress", vipSourceAddress},
		{"UDP", udp},
		{"MTU", mtuFollows},
		{"DataPath", dataPathLosesLargePackets},
		{"Firewall", firewall},
		{"DualStack", dualStack},
		{"Mesh6", mesh6},
		{"Hairpin", hairpin},
		{"HostMode", hostMode},
		{"HostNetwork", hostNetwork},
		{"Isolation", isolation},
		{"NobodyListens", nobodyListens},
		{"EndpointMode", endpointMode},
		{"HeldNames", heldNames},
		{"Attachable", attachable},
		{"Encrypted", encrypted},
		{"Sight", sight},
		{"Idle", idle},
		{"ScaleUpDown", scaleUpDown},
		{"TaskKilledIsReplaced", taskKilledIsReplaced},
		{"Health", health}, {"Dependent", dependent},
		{"Policy", policy}, {"CountsConnections", countsConnections},
		{"NetworkLife", networkLife},
		{"Trample", trample},
		{"ShoaldAway", shoaldAway},
		{"ShoaldKill9", shoaldKill9},
		{"HostWithoutIPv6", hostWithoutIPv6},
		{"LeaderKilled", leaderKilled},
		{"HostPowerCut", hostPowerCut},
		{"MajorityLost", majorityLost},
		{"AllManagersRestart", allManagersRestart},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := &world{T: t, lab: l, api: l.Hosts()[0]}
			defer w.recover()
			test.run(w)
		})
	}
}

// world is what a test works on.
type world struct {
	*testing.T
	lab *lab.Lab
	// api is the host whose API is asked.
	api lab.Host
	// networks are those that the test made.
	networks []string
}

// host is a host by its number.
func (w *world) host(n int) lab.Host { return w.lab.Hosts()[n-1] }

// must ends the test on an error.
func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// eventually waits until check is content, within d on a quick machine.
func (w *world) eventually(d time.Duration, what string, check func() error) {
	w.Helper()
	labtest.Eventually(w, d, what, check)
}

// call asks the API.
func (w *world) call(method, path string, body, answer any) error {
	// The request of a cleanup outlives the test's own context.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(w.Context()), labtest.Within(30*time.Second))
	defer cancel()
	return w.api.Call(ctx, method, path, body, answer)
}

// recover heals the lab and removes what the test made, also after a failure.
func (w *world) recover() {
	w.Helper()
	ctx := context.WithoutCancel(w.Context())
	if w.Failed() {
		labtest.Views(w, w.lab)
	}
	if err := w.lab.Heal(ctx); err != nil {
		w.Error(err)
		return
	}
	w.api = w.host(1)
	w.removeServices()
	w.eventually(30*time.Second, "no task is left", func() error {
		tasks, err := w.tasks(nil)
		if err == nil && len(tasks) > 0 {
			one := tasks[0]
			err = fmt.Errorf("%d tasks, the first: %s of slot %d of service %s on node %s, %s, should be %s: %s %s", len(tasks), one.ID, one.Slot, one.ServiceID, one.NodeID,
				one.Status.State, one.DesiredState, one.Status.Message, one.Status.Err)
		}
		return err
	})
	for _, id := range w.networks {
		w.eventually(10*time.Second, "remove a network", func() error {
			return w.call(http.MethodDelete, "/networks/"+id, nil, nil)
		})
	}
}

// removeServices removes every service there is, also one whose creator was told
// that nobody knows whether it will be.
func (w *world) removeServices() {
	w.Helper()
	w.eventually(15*time.Second, "remove all services", func() error {
		services, err := get[[]swarm.Service](w, "/services", nil)
		for _, s := range services {
			err = errors.Join(err, w.call(http.MethodDelete, "/services/"+s.ID, nil, nil))
		}
		return err
	})
}

// get fetches a list with filters.
func get[T any](w *world, path string, filters map[string][]string) (T, error) {
	var out T
	err := w.call(http.MethodGet, path+"?filters="+url.QueryEscape(encode(filters)), nil, &out)
	return out, err
}
