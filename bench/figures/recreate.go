package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
	"shoal/overlay/netns"
)

const (
	againName = "figures-again"
	againPort = 18450
)

// againSubnet is what every second network names, so that one follows another with
// the same.
var againSubnet = netip.MustParsePrefix("10.250.250.0/24")

// recreate removes a service with its network and makes both again at once, under
// the same names and the same port, many times.
func recreate(ctx context.Context, l *lab.Lab, rounds int) (err error) {
	s := &scene{l: l}
	defer func() { err = errors.Join(err, s.again(context.WithoutCancel(ctx), true)) }()
	var reached, answered []time.Duration
	for i := range rounds + 1 {
		removing := time.Now()
		if err := s.again(ctx, i == 0); err != nil {
			return err
		}
		creating := time.Now()
		id, err := s.createAgain(ctx, i%2 == 0)
		if err != nil {
			return err
		}
		created := time.Now()
		if err := s.reachedEverywhere(ctx, id); err != nil {
			return fmt.Errorf("round %d: %w", i, err)
		}
		if i == 0 { // nothing was there before
			continue
		}
		reached, answered = append(reached, time.Since(creating)), append(answered, created.Sub(removing))
		fmt.Printf("round %2d: removed and created after %d ms, reached by name and port from every host after %d ms\n",
			i, answered[i-1].Milliseconds(), reached[i-1].Milliseconds())
	}
	fmt.Println("the API's answers to removal and creation:", distribution(answered))
	fmt.Println("creation → reached by name and port from every host:", distribution(reached))
	return nil
}

// again removes service and network; missing says that they need not be there.
func (s *scene) again(ctx context.Context, missing bool) error {
	for _, path := range []string{"/services/", "/networks/"} {
		if err := s.call(ctx, http.MethodDelete, path+againName, nil, nil); err != nil && !missing {
			return err
		}
	}
	return nil
}

func (s *scene) createAgain(ctx context.Context, named bool) (serviceID string, err error) {
	req := network.CreateRequest{Name: againName, Driver: "overlay"}
	if named {
		req.IPAM = &network.IPAM{Config: []network.IPAMConfig{{Subnet: againSubnet}}}
	}
	if err := s.call(ctx, http.MethodPost, "/networks/create", req, nil); err != nil {
		return "", err
	}
	spec := swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: againName},
		TaskTemplate: swarm.TaskSpec{
			ContainerSpec: &swarm.ContainerSpec{Image: "shoal/whoami:latest"},
			Networks:      []swarm.NetworkAttachmentConfig{{Target: againName}},
		},
		Mode:         swarm.ServiceMode{Global: &swarm.GlobalService{}},
		EndpointSpec: &swarm.EndpointSpec{Ports: []swarm.PortConfig{{Protocol: "tcp", TargetPort: 80, PublishedPort: againPort}}},
	}
	var made swarm.ServiceCreateResponse
	err = s.call(ctx, http.MethodPost, "/services/create", spec, &made)
	return made.ID, err
}

// reachedEverywhere waits until the service answers on every host: at its port,
// and by its name from the task there. What its predecessor answers does not count.
func (s *scene) reachedEverywhere(ctx context.Context, serviceID string) error {
	tasks, err := s.running(ctx, serviceID, len(s.l.Hosts()))
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, 2*len(tasks))
	for i, h := range s.l.Hosts() {
		wg.Go(func() {
			errs[2*i] = await(ctx, "an answer at port "+strconv.Itoa(againPort)+" of "+h.Name, func() error {
				return answers(ctx, tasks, net.JoinHostPort(h.Address.String(), strconv.Itoa(againPort)), (&net.Dialer{}).DialContext)
			})
		})
	}
	for i, t := range tasks {
		wg.Go(func() {
			errs[2*i+1] = await(ctx, "an answer to "+againName+" in task "+t.ID, func() error { return answersByName(ctx, tasks, t) })
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// answersByName asks the name server of a task for the service's name, and the
// service at what that says.
func answersByName(ctx context.Context, tasks []swarm.Task, from swarm.Task) error {
	dial := func(ctx context.Context, kind, address string) (net.Conn, error) {
		return netns.Dial(ctx, fmt.Sprintf("/proc/%d/ns/net", pid(from)), kind, address)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, kind, _ string) (net.Conn, error) {
		return dial(ctx, kind, "127.0.0.11:53")
	}}
	found, err := resolver.LookupNetIP(ctx, "ip4", againName+".")
	if err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("%s is %v", againName, found)
	}
	return answers(ctx, tasks, net.JoinHostPort(found[0].Unmap().String(), "80"), dial)
}

// answers asks once, and wants one of the tasks to answer, from its own address:
// names of tasks return.
func answers(ctx context.Context, tasks []swarm.Task, address string, dial func(context.Context, string, string) (net.Conn, error)) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}, Timeout: time.Second}
	local, err := netip.ParseAddrPort(line(ctx, &client, "http://"+address+"/", "local="))
	if err != nil {
		return fmt.Errorf("nobody answers at %s: %w", address, err)
	}
	for _, t := range tasks {
		for _, a := range t.NetworksAttachments {
			if slices.ContainsFunc(a.Addresses, func(p netip.Prefix) bool { return p.Addr() == local.Addr().Unmap() }) {
				return nil
			}
		}
	}
	return fmt.Errorf("%s answers at %s, which is no task's", local, address)
}
