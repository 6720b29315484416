//go:build lab

package e2e

import (
	"fmt"
	"strings"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
	"shoal/control/api"
)

// labelled gives the service labels, in pairs.
func labelled(pairs ...string) option {
	return func(s *swarm.ServiceSpec) {
		s.Labels = map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			s.Labels[pairs[i]] = pairs[i+1]
		}
	}
}

// policy: the nearest task first, a client kept at its task, a port at one address.
func policy(w *world) {
	w.startGlobal("policy-near", published(8260, network.TCP), labelled(api.LabelPrefer, "local"))
	w.start("policy-kept", 3, published(8261, network.TCP), labelled(api.LabelSticky, "1h"))
	w.start("policy-one", 1, published(8262, network.TCP), labelled(api.LabelPublish, w.host(1).Address.String()+",localhost"))
	for _, h := range w.lab.Hosts() {
		w.answered(ask, []lab.Host{h}, 8260, 6, "node", []string{h.Name})
		w.eventually(15*time.Second, "one task of "+h.Name+" for one client", func() error {
			seen, err := answers(ask, h, 8261, 9, "task")
			if err == nil && len(seen) != 1 {
				err = fmt.Errorf("%v answered", seen)
			}
			return err
		})
	}
	w.answered(ask, w.lab.Hosts()[:1], 8262, 3, "task", []string{"policy-one.1"})
	for _, h := range w.lab.Hosts()[1:] {
		if _, err := ask(h, 8262); err == nil || !strings.Contains(err.Error(), "refused") {
			w.Errorf("%s at another address than the one that was chosen: %v", h.Name, err)
		}
	}
	if err := w.call("POST", "/services/create", define("policy-bad", 1, labelled(api.LabelPrefer, "remote")), nil); err == nil {
		w.Error("a preference that nobody knows is taken")
	}
}
