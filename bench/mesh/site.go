package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// netnsDir is where ip netns keeps names; prefix begins those of this program.
const (
	netnsDir = "/run/netns"
	prefix   = "smesh-"
)

// site is what was made so far, in the order in which it was made. The first
// failure stops everything that follows, so that building reads as a plan.
type site struct {
	ctx       context.Context
	err       error
	processes []*process
	// servers finds the process of a namespace's server.
	servers map[string]int
	clients map[string]*agent
	dir     string
	nice    int
}

func newSite(ctx context.Context, dir string, nice int) *site {
	return &site{ctx: ctx, dir: dir, nice: nice, servers: map[string]int{}, clients: map[string]*agent{}}
}

// path is the file of a namespace of this program.
func path(name string) string { return filepath.Join(netnsDir, prefix+name) }

// run runs a command.
func (s *site) run(args ...string) { s.feed("", args...) }

// feed runs a command with a text as its input.
func (s *site) feed(input string, args ...string) {
	if s.err != nil {
		return
	}
	cmd := exec.CommandContext(s.ctx, args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.err = fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
}

// ip runs lines of ip(8), without blank ones, in a namespace.
func (s *site) ip(name, lines string) {
	s.feed(lines, "ip", "-n", prefix+name, "-batch", "-")
}

// nft loads a ruleset in a namespace.
func (s *site) nft(name, rules string) {
	s.feed(rules, "nsenter", "--net="+path(name), "--", "nft", "-f", "-")
}

// ipvs loads lines of ipvsadm(8) in a namespace.
func (s *site) ipvs(name, lines string) {
	s.feed(lines, "nsenter", "--net="+path(name), "--", "ipvsadm", "-R")
}

// sysctl sets keys of a namespace.
func (s *site) sysctl(name string, pairs ...string) {
	s.run(append([]string{"nsenter", "--net=" + path(name), "--", "sysctl", "-qw"}, pairs...)...)
}

// namespace makes a namespace.
func (s *site) namespace(name string) {
	s.run("ip", "netns", "add", prefix+name)
	s.ip(name, "link set lo up\n")
	s.settle(path(name))
}

// settle sets what every namespace of the comparison has: ports that wait after
// their connections have ended are used again, so that no client runs out of them,
// and what a measurement leaves in the connection table, which all namespaces
// share, is gone before it weighs on the next.
func (s *site) settle(namespace string) {
	s.run("nsenter", "--net="+namespace, "--", "sysctl", "-qew", "net.ipv4.tcp_tw_reuse=1", "net.ipv4.ip_local_port_range=10240 65000",
		"net.netfilter.nf_conntrack_tcp_timeout_time_wait=1", "net.netfilter.nf_conntrack_tcp_timeout_close=1",
		"net.netfilter.nf_conntrack_tcp_timeout_last_ack=1")
}

// forwards makes a namespace forward packets, also out of the link they came by,
// without telling their senders.
func (s *site) forwards(name string) {
	s.sysctl(name, "net.ipv4.ip_forward=1",
		"net.ipv4.conf.all.send_redirects=0", "net.ipv4.conf.default.send_redirects=0", "net.ipv4.conf.eth0.send_redirects=0",
		"net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0")
}

// server starts a server in the namespace that a path names.
func (s *site) server(name, path string) {
	if p := s.start(path, roleServe, fmt.Sprint(portServer)); p != nil {
		s.servers[name] = p.pid
	}
}

// client starts a client in the namespace that a path names.
func (s *site) client(name, path string) {
	if p := s.start(path, roleAgent); p != nil {
		s.clients[name] = &agent{process: p, where: name}
	}
}

// keep starts another program in a namespace of this program and returns its number.
func (s *site) keep(name string, args ...string) int {
	p := s.start(path(name), append([]string{roleKeep}, args...)...)
	if p == nil {
		return 0
	}
	line, err := p.output.ReadString('\n')
	if err == nil {
		_, err = fmt.Sscan(line, &p.pid)
	}
	if err != nil {
		s.err = fmt.Errorf("%s says no process number: %w: %s", strings.Join(args, " "), err, p.errors)
	}
	return p.pid
}

func (s *site) start(namespace string, role ...string) *process {
	if s.err != nil {
		return nil
	}
	p, err := start(namespace, s.nice, role...)
	if err != nil {
		s.err = err
		return nil
	}
	s.processes = append(s.processes, p)
	return p
}

// file writes a file into the directory of the run.
func (s *site) file(name, text string) string {
	at := filepath.Join(s.dir, name)
	if s.err == nil {
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			s.err = fmt.Errorf("write %s: %w", at, err)
		}
	}
	return at
}

// down ends the processes and takes the namespaces away.
func (s *site) down() error {
	var errs []error
	for _, p := range s.processes {
		errs = append(errs, p.end())
	}
	return errors.Join(append(errs, sweep())...)
}

// sweep removes namespaces of this program, also those that an earlier run left.
func sweep() error {
	left, err := filepath.Glob(filepath.Join(netnsDir, prefix+"*"))
	if err != nil {
		return fmt.Errorf("list the namespaces: %w", err)
	}
	var errs []error
	for _, at := range left {
		// The context of the run may be over: what was made goes anyway.
		if out, err := exec.Command("ip", "netns", "del", filepath.Base(at)).CombinedOutput(); err != nil {
			errs = append(errs, fmt.Errorf("remove namespace %s: %w: %s", at, err, strings.TrimSpace(string(out))))
		}
	}
	return errors.Join(errs...)
}
