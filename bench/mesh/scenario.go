package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"time"
)

// contender is one way from a client to a server.
type contender struct {
	// Name and What are for people.
	Name, What string
	client     *agent
	target     netip.AddrPort
	// busy are the processes whose CPU time the way costs.
	busy []int
}

// scenario is a question with its contenders, of which the first is what the
// others are compared with.
type scenario struct {
	Name, What string
	contenders []contender
}

// Contenders that more than one scenario has.
const (
	nameDirect  = "direct"
	nameRaw     = "raw"
	nameProxy   = "haproxy"
	nameSwarm   = "swarm"
	nameShoal   = "shoal"
	nameOverlay = "shoal, task's address"
	nameHosts   = "underlay"
	nameOne     = "shoal, one service"
	nameMany    = "shoal, many services"
)

// rig is everything that was built.
type rig struct {
	site    *site
	shoal   *shoal
	proxies map[string]int
	packets []int
}

// build makes all ways. What it returns last takes away what was made, and is
// there also after a failure.
func build(ctx context.Context, o options) ([]scenario, func() error, error) {
	dir, err := os.MkdirTemp("", "shoal-bench-")
	if err != nil {
		return nil, func() error { return nil }, fmt.Errorf("make a directory: %w", err)
	}
	r := &rig{site: newSite(ctx, dir, o.nice)}
	down := func() error {
		// The context of the run may be over.
		return errors.Join(r.site.down(), r.shoal.down(context.WithoutCancel(ctx)), os.RemoveAll(dir))
	}
	if err := errors.Join(sweep(), programs()); err != nil {
		return nil, down, err
	}
	if r.packets, err = packetThreads(); err != nil {
		return nil, down, err
	}
	began := time.Now()
	say := func(what string) { fmt.Fprintf(os.Stderr, "%5.1f s: %s\n", time.Since(began).Seconds(), what) }
	r.proxies = r.site.plain(hasIPVS())
	say("plain hosts, raw balancers and HAProxy are up")
	r.site.swarm(hasIPVS())
	say("Swarm's path is up")
	r.site.many(o.services, balancer(o.balancer))
	say("services are loaded")
	if r.site.err != nil {
		return nil, down, r.site.err
	}
	if r.shoal, err = shoalUp(r.site, o); err != nil {
		return nil, down, err
	}
	say("Shoal is up")
	scenarios, err := r.scenarios(o.services)
	if err != nil {
		return nil, down, err
	}
	scenarios = slices.DeleteFunc(scenarios, func(s scenario) bool { return o.only != "" && s.Name != o.only })
	return scenarios, down, r.answering(scenarios, o.patience)
}

// programs finds what the contenders need.
func programs() error {
	want := []string{"ip", "bridge", "nft", "sysctl", "nsenter", "haproxy"}
	if hasIPVS() {
		want = append(want, "ipvsadm")
	}
	for _, name := range want {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%w: bench/setup/packages bench installs it", err)
		}
	}
	return nil
}

// hasIPVS reports whether the kernel balances by itself.
func hasIPVS() bool {
	_ = exec.Command("modprobe", "ip_vs").Run() // may be built in, or not be there: the file tells
	_, err := os.Stat("/proc/net/ip_vs")
	return err == nil
}

// answering waits until every contender answers.
func (r *rig) answering(scenarios []scenario, patience time.Duration) error {
	for _, s := range scenarios {
		for _, c := range s.contenders {
			began := time.Now()
			if err := c.client.listening(r.site.ctx, c.target, patience/3); err != nil {
				return fmt.Errorf("%s, %s: %w", s.Name, c.Name, err)
			}
			if took := time.Since(began); took > time.Second {
				fmt.Fprintf(os.Stderr, "%s, %s: answers after %s\n", s.Name, c.Name, took.Round(100*time.Millisecond))
			}
		}
	}
	return nil
}

// way describes a contender: the client in one namespace, the server in another.
func (r *rig) way(name, what, client, server string, addr netip.Addr, port int, more ...int) contender {
	c := r.site.clients[client]
	busy := append([]int{c.pid, r.site.servers[server]}, more...)
	return contender{Name: name, What: what, client: c, target: netip.AddrPortFrom(addr, uint16(port)), busy: append(busy, r.packets...)}
}

func (r *rig) scenarios(services int) ([]scenario, error) {
	near, err := r.virtualScenario("vip-local", "task to virtual IP, server on the same host", "near", shoalServices[1], "s1", "t1",
		addresses{plainNet.addr(21).String(), rawVIPNear, swarmVIPNear}, proxyNear)
	if err != nil {
		return nil, err
	}
	far, err := r.virtualScenario("vip-remote", "task to virtual IP, server on another host", "far", shoalServices[2], "s2", "t2",
		addresses{plainNet.addr(22).String(), rawVIPFar, swarmVIPFar}, proxyFar)
	if err != nil {
		return nil, err
	}
	far.contenders = append(far.contenders, r.way(nameHosts, "host to host, without an overlay", "h1", "h2", netip.MustParseAddr(underlay(plainHost2)), portServer))
	return []scenario{near, far,
		r.portScenario("port-local", "outside to published port, server on the host that was reached", 0),
		r.portScenario("port-remote", "outside to published port, server on another host", 1),
		r.servicesScenario(services),
	}, nil
}

// addresses are what the contenders of a scenario with a virtual IP connect to.
type addresses struct {
	server, raw string
	swarm       int
}

func (r *rig) virtualScenario(name, what, vip string, task service, plain, swarm string, at addresses, proxy int) (scenario, error) {
	virtual, err := r.shoal.virtual(vip)
	if err != nil {
		return scenario{}, err
	}
	own, err := r.shoal.own(task)
	if err != nil {
		return scenario{}, err
	}
	addr := netip.MustParseAddr
	const client = "shoal/client"
	return scenario{Name: name, What: what, contenders: []contender{
		r.way(nameDirect, "a plain overlay, the server's own address", "c1", plain, addr(at.server), portServer),
		r.way(nameRaw, rawWords()+" in a namespace between client and server", "c1", plain, addr(at.raw), portServer),
		r.way(nameProxy, "HAProxy in TCP mode, in a namespace between client and server", "c1", plain, plainNet.addr(32), proxy, r.proxies["px"]),
		r.way(nameSwarm, "Docker Swarm's load balancer namespace, "+swarmWords(), "wc", swarm, swarmNet.addr(at.swarm), portServer),
		r.way(nameOverlay, "Shoal's overlay, the task's own address", client, "shoal/"+vip, own, portServer),
		r.way(nameShoal, "Shoal's virtual IP", client, "shoal/"+vip, virtual, portServer),
	}}, nil
}

// portScenario has the server on the host that was reached, 0, or on the other, 1.
func (r *rig) portScenario(name, what string, far int) scenario {
	addr := netip.MustParseAddr
	plain := []string{underlay(plainHost1), underlay(plainHost2)}[far]
	raw := []string{"b1", "h2"}[far]
	return scenario{Name: name, What: what, contenders: []contender{
		r.way(nameDirect, "a process of the host itself", "out", []string{"h1", "h2"}[far], addr(plain), portServer),
		r.way(nameRaw, rawWords()+" on a host, destination translated only", "out", raw, addr(rawVIPLAN), rawPortNear+far),
		r.way(nameProxy, "HAProxy in TCP mode on a host", "out", []string{"h1", "h2"}[far], addr(underlay(plainHost1)), proxyNear+far, r.proxies["h1"]),
		r.way(nameSwarm, "Docker Swarm's routing mesh, "+swarmWords(), "out", []string{"t1", "t2"}[far], addr(underlay(swarmHost1)), swarmNear+far),
		r.way(nameShoal, "Shoal's routing mesh", "sout", []string{"shoal/near-port", "shoal/far-port"}[far], r.shoal.published(shoalNear).Addr(), shoalNear+far),
	}}
}

func rawWords() string {
	if hasIPVS() {
		return "IPVS in NAT mode"
	}
	return "a map of nftables"
}

func swarmWords() string {
	if hasIPVS() {
		return "with IPVS"
	}
	return "with nftables for IPVS"
}
