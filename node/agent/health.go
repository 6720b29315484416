package agent

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"

	"shoal/node/runtime"
)

// What a health check does that leaves it open, as Docker has it.
const (
	checkInterval      = 30 * time.Second
	checkTimeout       = 30 * time.Second
	checkStartInterval = 5 * time.Second
	checkRetries       = 3
)

// healthLog is how many results are kept for those who look.
const healthLog = 5

// Check is what a task's process is asked, how often, and how many failures in a
// row make it unhealthy.
type Check struct {
	Args                                          []string
	Interval, Timeout, StartPeriod, StartInterval time.Duration
	Retries                                       int
}

// newCheck joins what the service asks for with what the image does; nil is no
// check.
func newCheck(own *container.HealthConfig, image runtime.Image) *Check {
	var h container.HealthConfig
	if own != nil {
		h = *own
	}
	if i := image.Healthcheck; i != nil {
		if len(h.Test) == 0 {
			h.Test = i.Test
		}
		h.Interval, h.Timeout = either(h.Interval, i.Interval), either(h.Timeout, i.Timeout)
		h.StartPeriod, h.StartInterval = either(h.StartPeriod, i.StartPeriod), either(h.StartInterval, i.StartInterval)
		h.Retries = either(h.Retries, i.Retries)
	}
	args := checkArgs(h.Test, image.Shell)
	if len(args) == 0 {
		return nil
	}
	return &Check{
		Args: args, Interval: either(h.Interval, checkInterval), Timeout: either(h.Timeout, checkTimeout), StartPeriod: h.StartPeriod,
		StartInterval: either(h.StartInterval, checkStartInterval), Retries: either(h.Retries, checkRetries),
	}
}

// either returns the first value, or the second where the first says nothing.
func either[T time.Duration | int](a, b T) T {
	if a > 0 {
		return a
	}
	return b
}

// checkArgs is the program that a test runs: the words after CMD, or the command
// after CMD-SHELL by the image's shell; none for NONE and for what Docker does not
// know either.
func checkArgs(test, shell []string) []string {
	if len(test) < 2 {
		return nil
	}
	switch test[0] {
	case "CMD":
		return test[1:]
	case "CMD-SHELL":
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		return append(slices.Clone(shell), test[1])
	}
	return nil
}

// health is how a task is, by its check.
type health struct {
	container.Health
	started time.Time // the process
}

// pause is how long until the next question.
func (h *health) pause(c *Check, now time.Time) time.Duration {
	if h.Status == container.Starting && now.Sub(h.started) < c.StartPeriod {
		return c.StartInterval
	}
	return c.Interval
}

// note takes one answer in. In the start period, a task that has never been
// healthy cannot become unhealthy.
func (h *health) note(c *Check, r container.HealthcheckResult) {
	h.Log = append(slices.Clone(h.Log), &r)
	h.Log = h.Log[max(0, len(h.Log)-healthLog):]
	switch {
	case r.ExitCode == 0:
		h.FailingStreak, h.Status = 0, container.Healthy
	case h.Status == container.Starting && r.Start.Sub(h.started) < c.StartPeriod:
	default:
		if h.FailingStreak++; h.FailingStreak >= c.Retries {
			h.Status = container.Unhealthy
		}
	}
}

// examine asks the task's process again and again until ctx ends or it is
// unhealthy, and tells of every change of its health.
func (w *worker) examine(ctx context.Context, c *Check, h health, changed chan<- container.HealthStatus) {
	w.setHealth(h)
	for {
		pause(ctx, h.pause(c, w.a.cfg.Now()))
		if ctx.Err() != nil {
			return
		}
		answer, known := w.ask(ctx, c)
		if ctx.Err() != nil {
			return
		}
		if !known {
			continue
		}
		before := h.Status
		h.note(c, answer)
		w.setHealth(h)
		if h.Status == before {
			continue
		}
		select {
		case changed <- h.Status:
		case <-ctx.Done():
			return
		}
		if h.Status == container.Unhealthy {
			return
		}
	}
}

// ask runs the check once. A runtime that does not answer says nothing about the
// task.
func (w *worker) ask(ctx context.Context, c *Check) (answer container.HealthcheckResult, known bool) {
	answer.Start = w.a.cfg.Now()
	bounded, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	out, err := w.a.cfg.Runtime.Exec(bounded, w.containerID(), c.Args)
	answer.End, answer.ExitCode, answer.Output = w.a.cfg.Now(), out.ExitCode, out.Output
	switch {
	case err == nil:
	case bounded.Err() != nil:
		answer.ExitCode, answer.Output = -1, fmt.Sprintf("Health check exceeded timeout (%v): %s", c.Timeout, out.Output)
	case errdefs.IsUnavailable(err):
		w.a.cfg.Logger.Warn("the runtime does not run a task's health check", "task", w.id, "error", err)
		return answer, false
	default:
		answer.ExitCode, answer.Output = -1, err.Error()
	}
	return answer, true
}

func (w *worker) setHealth(h health) {
	w.mu.Lock()
	w.health = &h.Health
	w.mu.Unlock()
}

// Health returns how a task of this node is, nil for one without a health check.
// The caller must not change it.
func (a *Agent) Health(taskID string) *container.Health {
	a.mu.Lock()
	w := a.workers[taskID]
	a.mu.Unlock()
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.health
}

// exposedPorts are the TCP ports that an image says its program listens on.
func exposedPorts(image runtime.Image) (ports []uint16) {
	for _, text := range image.ExposedPorts {
		number, protocol, _ := strings.Cut(text, "/")
		if n, err := strconv.ParseUint(number, 10, 16); err == nil && n > 0 && (protocol == "" || protocol == "tcp") {
			ports = append(ports, uint16(n))
		}
	}
	slices.Sort(ports)
	return ports
}
