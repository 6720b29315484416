package agent

import (
	"context"
	"fmt"
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
	ports := w.listenPorts(t)
	began, told := w.a.cfg.Now(), false
	for wait := acceptPollMin; len(ports) > 0 && ctx.Err() == nil; wait = min(2*wait, acceptPollMax) {
		if w.a.cfg.Network.Accepts(ctx, t, ports) {
			return
		}
		if !told && w.a.cfg.Now().Sub(began) >= acceptUntold {
			told = true
			w.say(waitsFor(ports))
		}
		pause(ctx, wait)
	}
}

// acceptUntold is how long a task may take to listen before that is a reason that
// people are told: most listen at once.
const acceptUntold = time.Second

// waitsFor are the words for a task that does not listen yet.
func waitsFor(ports []uint16) string {
	words := make([]string, len(ports))
	for i, port := range ports {
		words[i] = fmt.Sprintf("%d/tcp", port)
	}
	verb := "accepts"
	if len(ports) > 1 {
		verb = "accept"
	}
	return fmt.Sprintf("takes no requests yet: waits until %s %s connections", strings.Join(words, " and "), verb)
}

// say records why the task is not further, for whoever asks the API.
func (w *worker) say(reason string) {
	w.update(func(st *swarm.TaskStatus) {
		if api.Rank(st.State) < api.Rank(swarm.TaskStateRunning) {
			st.Err = reason
		}
	})
}

// listenPorts are the TCP ports a task is expected to listen on: those it
// publishes, or else those that its image exposes.
func (w *worker) listenPorts(t *api.Task) []uint16 {
	var out []uint16
	for _, p := range t.Ports {
		if p.Protocol == "tcp" && p.TargetPort != 0 {
			out = append(out, uint16(p.TargetPort))
		}
	}
	if len(t.Ports) == 0 {
		return w.local.Exposed
	}
	return out
}
