package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// awaitAccept returns when the task accepts connections on its ports, or after
// a bound: a task that never listens is not held back for ever.
func (w *worker) awaitAccept(ctx context.Context, t *api.Task) {
	policy, _ := api.ParsePolicy(t.ServiceLabels) // the managers refuse what is wrong
	if policy.ReadyWhenStarted {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, policy.ReadyTimeout)
	defer cancel()
	ports, all := w.listenPorts(t)
	began, told := w.a.cfg.Now(), false
	for wait := acceptPollMin; len(ports) > 0 && ctx.Err() == nil; wait = min(2*wait, acceptPollMax) {
		if w.accepts(ctx, t, ports, all) {
			return
		}
		if !told && w.a.cfg.Now().Sub(began) >= acceptUntold {
			told = true
			w.say(waitsFor(ports, all))
		}
		pause(ctx, wait)
	}
}

// acceptUntold is how long a task may take to listen before that is a reason that
// people are told: most listen at once.
const acceptUntold = time.Second

// waitsFor are the words for a task that does not listen yet.
func waitsFor(ports []uint16, all bool) string {
	words := make([]string, len(ports))
	for i, port := range ports {
		words[i] = fmt.Sprintf("%d/tcp", port)
	}
	join, verb := " or ", "accepts"
	if all && len(ports) > 1 {
		join, verb = " and ", "accept"
	}
	return fmt.Sprintf("takes no requests yet: waits until %s %s connections", strings.Join(words, join), verb)
}

// say records why the task is not further, for whoever asks the API.
func (w *worker) say(reason string) {
	w.update(func(st *swarm.TaskStatus) {
		if api.Rank(st.State) < api.Rank(swarm.TaskStateRunning) {
			st.Err = reason
		}
	})
}

// accepts says whether the task accepts connections, on all of the ports or on one
// of them.
func (w *worker) accepts(ctx context.Context, t *api.Task, ports []uint16, all bool) bool {
	if all {
		return w.a.cfg.Network.Accepts(ctx, t, ports)
	}
	return slices.ContainsFunc(ports, func(port uint16) bool { return w.a.cfg.Network.Accepts(ctx, t, []uint16{port}) })
}

// listenPorts are the TCP ports a task is expected to listen on: all those that it
// publishes, or else one of those that its image exposes, which may name more than
// its program opens. In the node's own network only what the service itself names
// counts: a port of the image may be another program's there, or nobody's.
func (w *worker) listenPorts(t *api.Task) (ports []uint16, all bool) {
	for _, p := range t.Ports {
		if p.Protocol == "tcp" && p.TargetPort != 0 {
			ports = append(ports, uint16(p.TargetPort))
		}
	}
	if len(t.Ports) == 0 && !t.OnHost() {
		return w.local.Exposed, false
	}
	return ports, true
}
