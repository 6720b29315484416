package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"time"

	dockernet "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// Operator changes the cluster through the Docker API of any manager that
// answers, and remembers what was acknowledged.
type Operator struct {
	c *Cluster

	mu       sync.Mutex
	rng      *rand.Rand
	networks map[string]string // acknowledged, id by name
	services map[string]wish   // acknowledged, by name
	removed  map[string]bool   // ids of what was acknowledged to be gone
}

// wish is a service as it was acknowledged last.
type wish struct {
	id   string
	spec swarm.ServiceSpec
}

// NewOperator returns an operator who has done nothing yet.
func NewOperator(c *Cluster, rng *rand.Rand) *Operator {
	return &Operator{c: c, rng: rng, networks: map[string]string{}, services: map[string]wish{}, removed: map[string]bool{}}
}

// writeTimeout bounds a write with all its tries.
const writeTimeout = 45 * time.Second

// refusal is an answer that is no success.
type refusal struct {
	status  int
	message string
}

func (r *refusal) Error() string { return fmt.Sprintf("%d: %s", r.status, r.message) }

// manager picks a manager that most others hear.
func (o *Operator) manager() *Host {
	hosts := o.c.Managers()
	hosts = slices.DeleteFunc(hosts, func(h *Host) bool {
		l := o.c.Leader()
		return l == nil || !o.c.underlay.Reachable(h.addr, l.addr)
	})
	if len(hosts) == 0 {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return hosts[o.rng.IntN(len(hosts))]
}

// ask makes one request to one manager.
func ask(ctx context.Context, h *Host, method, path string, in, out any) error {
	d := h.Daemon()
	if d == nil || d.api == nil {
		return &refusal{http.StatusServiceUnavailable, h.name + " is down"}
	}
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req := httptest.NewRequestWithContext(ctx, method, "/v1.47"+path, bytes.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	res := httptest.NewRecorder()
	d.api.ServeHTTP(res, req)
	if res.Code >= 300 {
		return &refusal{res.Code, res.Body.String()}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(res.Body.Bytes(), out)
}

// insist repeats a write until it is acknowledged. Each try is told of the
// managers' newest state, since an earlier one may have been committed without
// anybody hearing of it.
func (o *Operator) insist(ctx context.Context, what string, try func(ctx context.Context, h *Host) error) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	var last error = errUnreachable
	for {
		if h := o.manager(); h != nil {
			if last = try(ctx, h); last == nil {
				return nil
			}
			if r, ok := last.(*refusal); !ok || r.status < 500 {
				return fmt.Errorf("%s on %s: %w", what, h.name, last)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w (%w)", what, last, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// CreateNetwork makes an overlay network.
func (o *Operator) CreateNetwork(ctx context.Context, name string) error {
	var reply struct{ ID string }
	err := o.insist(ctx, "create network "+name, func(ctx context.Context, h *Host) error {
		err := ask(ctx, h, http.MethodPost, "/networks/create", dockernet.CreateRequest{Name: name, Driver: "overlay", Scope: "swarm"}, &reply)
		if r, ok := err.(*refusal); ok && r.status == http.StatusConflict {
			if n := managerView(h).NetworkByName(name); n != nil { // an earlier try went through
				reply.ID, err = n.ID, nil
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.networks[name] = reply.ID
	return nil
}

// CreateService makes a service.
func (o *Operator) CreateService(ctx context.Context, spec swarm.ServiceSpec) error {
	var reply struct{ ID string }
	err := o.insist(ctx, "create service "+spec.Name, func(ctx context.Context, h *Host) error {
		err := ask(ctx, h, http.MethodPost, "/services/create", spec, &reply)
		if r, ok := err.(*refusal); ok && r.status == http.StatusConflict {
			if s := managerView(h).ServiceByName(spec.Name); s != nil {
				reply.ID, err = s.ID, nil
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.services[spec.Name] = wish{reply.ID, spec}
	return nil
}

// UpdateService changes a service's spec.
func (o *Operator) UpdateService(ctx context.Context, name string, change func(*swarm.ServiceSpec)) error {
	o.mu.Lock()
	w := o.services[name]
	o.mu.Unlock()
	spec, err := copySpec(w.spec)
	if err != nil {
		return err
	}
	change(&spec)
	err = o.insist(ctx, "update service "+name, func(ctx context.Context, h *Host) error {
		s := managerView(h).Service(w.id)
		if s == nil {
			return &refusal{http.StatusServiceUnavailable, "this manager does not know the service yet"}
		}
		path := "/services/" + w.id + "/update?version=" + strconv.FormatUint(s.Version.Index, 10)
		return ask(ctx, h, http.MethodPost, path, spec, nil)
	})
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.services[name] = wish{w.id, spec}
	return nil
}

func copySpec(s swarm.ServiceSpec) (out swarm.ServiceSpec, err error) {
	raw, err := json.Marshal(s)
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	return out, err
}

// RemoveService removes a service.
func (o *Operator) RemoveService(ctx context.Context, name string) error {
	o.mu.Lock()
	w := o.services[name]
	delete(o.services, name) // from here on either may be
	o.mu.Unlock()
	err := o.insist(ctx, "remove service "+name, func(ctx context.Context, h *Host) error {
		err := ask(ctx, h, http.MethodDelete, "/services/"+w.id, struct{}{}, nil)
		if r, ok := err.(*refusal); ok && r.status == http.StatusNotFound {
			return o.gone(ctx, w.id)
		}
		return err
	})
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.removed[w.id] = true
	return nil
}

// gone says whether a service that a manager does not know is really gone: a
// manager may not have heard of it yet, nor a new leader have read all of its own
// log. Whoever has had a change committed has everything before it.
func (o *Operator) gone(ctx context.Context, id string) error {
	l := o.c.Leader()
	if l == nil {
		return &refusal{http.StatusServiceUnavailable, "no manager leads"}
	}
	if m := managerOf(l); m != nil {
		nothing := &api.Task{}
		nothing.ID = "none"
		if err := m.Propose(ctx, []api.Op{api.Status(nothing)}); err == nil && m.View().Service(id) == nil {
			return nil
		}
	}
	return &refusal{http.StatusServiceUnavailable, "this manager does not know the service yet"}
}

// Wishes returns what was acknowledged: services by name, networks by name, and
// the ids of what is gone.
func (o *Operator) Wishes() (services map[string]wish, networks map[string]string, removed map[string]bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	services, networks, removed = map[string]wish{}, map[string]string{}, map[string]bool{}
	for k, v := range o.services {
		services[k] = v
	}
	for k, v := range o.networks {
		networks[k] = v
	}
	for k := range o.removed {
		removed[k] = true
	}
	return services, networks, removed
}

// replicas is how many tasks a wish asks for on a cluster with that many nodes.
func (w wish) replicas(nodes int) int {
	if w.spec.Mode.Global != nil {
		return nodes
	}
	if r := w.spec.Mode.Replicated; r != nil && r.Replicas != nil {
		return int(*r.Replicas)
	}
	return 1
}

// taskIsFor says whether a task is one of the service that should run.
func (w wish) taskIsFor(t *api.Task) bool { return t.ServiceID == w.id && t.Wanted() }
