//go:build lab

package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
	"shoal/bench/lab/labtest"
)

// reply is what the sample service answers: its lines by their names.
type reply map[string]string

func parse(text string) (reply, error) {
	r := reply{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			r[name] = value
		}
	}
	if r["task"] == "" {
		return nil, fmt.Errorf("not an answer of the sample service: %q", text)
	}
	return r, nil
}

// askPatience is how long one answer may take on a quick machine.
const askPatience = 2 * time.Second

// ask asks a host's published port over TCP, on a connection of its own.
func ask(h lab.Host, port int) (reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), labtest.Within(askPatience))
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+target(h, port)+"/", nil)
	if err != nil {
		return nil, err
	}
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, err
	}
	return parse(string(raw))
}

// askUDP asks a host's published port with one packet from a new port.
func askUDP(h lab.Host, port int) (reply, error) {
	conn, err := net.Dial("udp", target(h, port))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(labtest.Within(askPatience))); err != nil {
		return nil, err
	}
	if _, err := conn.Write([]byte("who are you?\n")); err != nil {
		return nil, err
	}
	buffer := make([]byte, 2048)
	n, err := conn.Read(buffer)
	if err != nil {
		return nil, err
	}
	return parse(string(buffer[:n]))
}

func target(h lab.Host, port int) string {
	return net.JoinHostPort(h.Address.String(), strconv.Itoa(port))
}

// question is one way to ask a host's port.
type question func(lab.Host, int) (reply, error)

// answers asks a port n times and counts by the line named key; it fails at the
// first request that fails.
func answers(how question, h lab.Host, port, n int, key string) (map[string]int, error) {
	seen := map[string]int{}
	for i := range n {
		r, err := how(h, port)
		if err != nil {
			return seen, fmt.Errorf("request %d of %d to %s: %w", i+1, n, h.Name, err)
		}
		seen[r[key]]++
	}
	return seen, nil
}

// answered waits until every one of n requests to each of the hosts is answered
// and exactly the wanted names take part.
func (w *world) answered(how question, hosts []lab.Host, port, n int, key string, want []string) {
	w.Helper()
	slices.Sort(want)
	for _, h := range hosts {
		w.eventually(30*time.Second, fmt.Sprintf("%s answers on port %d", h.Name, port), func() error {
			seen, err := answers(how, h, port, n, key)
			if err != nil {
				return err
			}
			if got := slices.Sorted(maps.Keys(seen)); !slices.Equal(got, want) {
				return fmt.Errorf("%v answered instead of %v", seen, want)
			}
			return nil
		})
	}
}

// slots are the names of a service's tasks as the sample service tells them.
func slots(name string, tasks []swarm.Task) (out []string) {
	for _, task := range tasks {
		out = append(out, fmt.Sprintf("%s.%d", name, task.Slot))
	}
	return out
}

// refused waits until every host refuses connections to a port, and says so at
// once instead of letting a client wait.
func (w *world) refused(port int) {
	w.Helper()
	for _, h := range w.lab.Hosts() {
		w.eventually(10*time.Second, fmt.Sprintf("%s refuses on port %d", h.Name, port), func() error {
			began := time.Now()
			_, err := ask(h, port)
			took := time.Since(began)
			switch {
			case err == nil:
				return errors.New("it answers")
			case !strings.Contains(err.Error(), "refused"):
				return err
			case took > labtest.Within(500*time.Millisecond):
				return fmt.Errorf("refused only after %s", took)
			}
			return nil
		})
	}
}

// inside runs the sample program in a task, where it is a client like any other.
func inside(task swarm.Task, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), labtest.Within(20*time.Second))
	defer cancel()
	enter := []string{"-t", strconv.Itoa(pid(task)), "-n", "-m", "/whoami"}
	out, err := exec.CommandContext(ctx, "nsenter", append(enter, args...)...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("whoami %v in task %s: %w: %s", args, task.ID, err, out)
	}
	return string(out), nil
}

// load asks hosts in turn, over and over, and keeps what failed.
type load struct {
	stop   context.CancelFunc
	done   sync.WaitGroup
	asked  int
	failed []string
}

// startLoad begins to ask a published port, one request after the other.
func (w *world) startLoad(port int, hosts ...lab.Host) *load {
	ctx, cancel := context.WithCancel(w.Context())
	l := &load{stop: cancel}
	l.done.Go(func() {
		for ctx.Err() == nil {
			h := hosts[l.asked%len(hosts)]
			l.asked++
			time.Sleep(labtest.Within(2 * time.Millisecond)) // who asks must not starve who answers
			if _, err := ask(h, port); err != nil && ctx.Err() == nil {
				l.failed = append(l.failed, fmt.Sprintf("%s %s: %v", time.Now().Format("15:04:05.000"), h.Name, err))
			}
		}
	})
	return l
}

// end stops asking and returns how many requests there were and which failed.
func (l *load) end() (asked int, failed []string) {
	l.stop()
	l.done.Wait()
	return l.asked, l.failed
}
