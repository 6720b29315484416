package dockerapi

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/need"
	"shoal/control/api"
)

// cli runs the stock docker client against the cluster's API on a unix socket.
type cli struct {
	*cluster
	socket, home string
}

func newCLI(t testing.TB, c *cluster) *cli {
	t.Helper()
	_, err := exec.LookPath("docker")
	need.Feature(t, "docker-cli", err)
	dir := t.TempDir()
	d := &cli{c, filepath.Join(dir, "api.sock"), dir}
	l, err := net.Listen("unix", d.socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: c.router}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Close()
		<-done
	})
	return d
}

// run returns what the client printed and whether it succeeded.
func (d *cli) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(d.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix://"+d.socket, "DOCKER_CONFIG="+d.home)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (d *cli) must(args ...string) string {
	d.Helper()
	out, err := d.run(args...)
	if err != nil {
		d.Fatalf("docker %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func (d *cli) prints(want string, args ...string) {
	d.Helper()
	if out := d.must(args...); out != want {
		d.Errorf("docker %s prints\n%s\nwant\n%s", strings.Join(args, " "), out, want)
	}
}

func (d *cli) fails(want string, args ...string) {
	d.Helper()
	if out, err := d.run(args...); err == nil || !strings.Contains(out, want) {
		d.Errorf("docker %s: %v\n%s\nwant %s", strings.Join(args, " "), err, out, want)
	}
}

func TestDockerCLI(t *testing.T) {
	d := newCLI(t, newCluster(t))
	d.fails("This node is not a swarm manager. Use \"docker swarm init\"", "service", "ls")
	if out := d.must("swarm", "init", "--advertise-addr", "10.77.0.1"); !strings.Contains(out, "docker swarm join --token SWMTKN-1-") {
		t.Errorf("swarm init: %s", out)
	}
	d.fails("This node is already part of a swarm", "swarm", "init")
	token := d.must("swarm", "join-token", "-q", "worker")
	if next := d.must("swarm", "join-token", "-q", "--rotate", "worker"); next == token {
		t.Error("the token did not change")
	}
	d.must("swarm", "update", "--task-history-limit", "3")
	d.prints("h1 Ready Active Leader", "node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}}")
	d.must("node", "update", "--label-add", "zone=a", "h1")
	d.prints("a", "node", "inspect", "self", "-f", "{{.Spec.Labels.zone}}")
	d.fails("attempting to demote the last manager of the swarm", "node", "demote", "h1")

	d.must("network", "create", "-d", "overlay", "app")
	d.fails("network with name app already exists", "network", "create", "-d", "overlay", "app")
	d.prints("app overlay swarm\nbridge bridge local\ningress overlay swarm", "network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}")
	d.prints("app swarm", "network", "inspect", "app", "-f", "{{.Name}} {{.Scope}}")

	d.service()

	d.stack()
	d.fails("is in use by service web", "network", "rm", "app")
	d.must("service", "rm", "web")
	for _, task := range d.store.View().Tasks() {
		gone := task.Copy()
		gone.Status.State = swarm.TaskStateShutdown
		d.commit(api.Status(gone))
	}
	d.must("network", "rm", "app")
	d.fails("network app not found", "network", "inspect", "app")
	d.must("swarm", "leave", "--force")
	d.fails("This node is not part of a swarm", "swarm", "leave")
}

// service is the part of the script that is about services and their tasks.
func (d *cli) service() {
	d.must("service", "create", "-d", "--no-resolve-image", "--name", "web", "--network", "app", "--replicas", "2",
		"-p", "8080:80", "--constraint", "node.role==manager", "--limit-memory", "64M", "--env", "A=b",
		"--update-delay", "1s", "--restart-condition", "on-failure", "--mount", "type=tmpfs,dst=/t", "shoal/whoami")
	d.fails("name conflicts with an existing object: service web already exists", "service", "create", "-d", "--no-resolve-image", "--name", "web", "x")
	d.fails("port '8080' is already in use by service 'web'", "service", "create", "-d", "--no-resolve-image", "-p", "8080:80", "x")
	d.fails("constraint expected one operator from ==, !=", "service", "create", "-d", "--no-resolve-image", "--constraint", "a=b", "x")
	d.fails("network nope not found", "service", "create", "-d", "--no-resolve-image", "--network", "nope", "x")
	id := d.store.View().ServiceByName("web").ID
	for slot := 1; slot <= 2; slot++ {
		d.addTask(id, d.self().ID, slot)
	}
	s := d.store.View().Service(id).Copy()
	s.Endpoint.Ports = s.Spec.EndpointSpec.Ports
	d.commit(api.Update(s))
	d.prints("web replicated 2/2 shoal/whoami:latest *:8080->80/tcp", "service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}} {{.Ports}}")
	ps := d.must("service", "ps", "web", "--format", "{{.Name}} {{.Node}} {{.DesiredState}}")
	if ps != "web.1 h1 Running\nweb.2 h1 Running" {
		d.Errorf("service ps:\n%s", ps)
	}
	d.prints(ps, "node", "ps", "self", "--format", "{{.Name}} {{.Node}} {{.DesiredState}}")
	if out := d.must("service", "inspect", "--pretty", "web"); !strings.Contains(out, "Networks: app") {
		d.Errorf("service inspect --pretty:\n%s", out)
	}
	d.must("service", "scale", "-d", "web=5")
	d.must("service", "update", "-d", "--no-resolve-image", "--image", "shoal/whoami:v2", "web")
	d.must("service", "rollback", "-d", "web")
	s = d.store.View().Service(id)
	if *s.Spec.Mode.Replicated.Replicas != 5 || s.Spec.TaskTemplate.ContainerSpec.Image != "shoal/whoami:latest" {
		d.Errorf("after scale, update and rollback: %+v", s.Spec)
	}
	d.converges(id)
}

// converges lets the progress display see a service become as it was asked for.
func (d *cli) converges(id string) {
	for _, t := range d.store.View().TasksByService(id) {
		t = t.Copy()
		t.DesiredState = swarm.TaskStateShutdown
		d.commit(api.Update(t))
	}
	s := d.store.View().Service(id).Copy()
	s.UpdateStatus = nil
	d.commit(api.Update(s))
	done := make(chan string, 1)
	go func() {
		out, err := d.run("service", "update", "--no-resolve-image", "--update-monitor", "1ns", "--env-add", "B=c", "web")
		done <- fmt.Sprint(out, err)
	}()
	before := s.SpecVersion
	for d.Context().Err() == nil && d.store.View().Service(id).SpecVersion == before {
		changed := d.store.Changed(api.KindService)
		if d.store.View().Service(id).SpecVersion == before {
			<-changed
		}
	}
	for slot := 1; slot <= 5; slot++ {
		d.addTask(id, d.self().ID, slot+10, func(t *api.Task) { t.Slot = slot })
	}
	if out := <-done; !strings.Contains(out, "converged") {
		d.Errorf("service update: %s", out)
	}
}

// stack deploys, lists and removes a stack.
func (d *cli) stack() {
	file := filepath.Join(d.home, "stack.yml")
	text := "services:\n  api:\n    image: shoal/whoami\n    deploy: {replicas: 2}\n    ports: ['9000:80']\n  db:\n    image: shoal/whoami\n    deploy: {mode: global}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		d.Fatal(err)
	}
	for range 2 { // the second time updates
		d.must("stack", "deploy", "--resolve-image", "never", "-d", "-c", file, "s")
	}
	d.prints("s 2", "stack", "ls", "--format", "{{.Name}} {{.Services}}")
	d.prints("s_api replicated 0/2\ns_db global 0/0", "stack", "services", "s", "--format", "{{.Name}} {{.Mode}} {{.Replicas}}")
	if out := d.must("stack", "rm", "s"); !strings.Contains(out, "Removing network s_default") {
		d.Errorf("stack rm: %s", out)
	}
}

// A client that speaks an older version of the API is served the same.
func TestDockerCLIOfOldVersions(t *testing.T) {
	d := newCLI(t, newManager(t))
	for _, version := range []string{"1.30", "1.41"} {
		t.Setenv("DOCKER_API_VERSION", version)
		name := "v" + strings.ReplaceAll(version, ".", "-")
		d.must("service", "create", "-d", "--name", name, "--no-resolve-image", "shoal/whoami")
		d.must("service", "update", "-d", "--no-resolve-image", "--replicas", "3", name)
		d.prints(name, "service", "ls", "-f", "name="+name, "--format", "{{.Name}}")
	}
	t.Setenv("DOCKER_API_VERSION", "1.49")
	d.fails("client version 1.49 is too new. Maximum supported API version is 1.47", "service", "ls")
}
