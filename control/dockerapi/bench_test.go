package dockerapi

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/moby/moby/api/types/swarm"
	"go.uber.org/goleak"

	"shoal/control/api"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// discard is a response that costs nothing.
type discard struct{ io.Writer }

func (discard) Header() http.Header { return http.Header{} }
func (discard) WriteHeader(int)     {}

// BenchmarkProgress measures the three requests that every waiting client makes
// five times a second, beside services and nodes that it does not wait for.
func BenchmarkProgress(b *testing.B) {
	const nodes, services, tasks = 100, 100, 20
	c := newManager(b)
	var ops []api.Op
	for i := range nodes {
		n := &api.Node{Number: uint32(i + 2)}
		n.ID, n.Spec.Role, n.Description.Hostname = api.NewID(), swarm.NodeRoleWorker, fmt.Sprint("h", i+2)
		ops = append(ops, api.Create(n))
	}
	var last string
	for i := range services {
		s := &api.Service{}
		s.ID, s.Spec = api.NewID(), spec(fmt.Sprint("web", i), replicas(tasks))
		ops = append(ops, api.Create(s))
		for slot := range tasks {
			t := &api.Task{ServiceName: s.Spec.Name}
			t.ID, t.ServiceID, t.Slot, t.Spec = api.NewID(), s.ID, slot+1, s.Spec.TaskTemplate
			ops = append(ops, api.Create(t))
		}
		last = s.ID
	}
	c.commit(ops...)
	for _, path := range []string{"/services/" + last + "?insertDefaults=false",
		`/tasks?filters={"service":{"` + last + `":true},"_up-to-date":{"true":true}}`, "/nodes"} {
		b.Run(path[:6], func(b *testing.B) {
			r := httptest.NewRequest("GET", path, nil)
			for b.Loop() {
				c.router.ServeHTTP(discard{io.Discard}, r)
			}
		})
	}
}
