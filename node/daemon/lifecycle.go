package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/ca"
	"shoal/control/genesis"
	"shoal/control/join"
	"shoal/overlay/rtnl"
)

// controlPort is where managers listen unless told otherwise.
const controlPort = 2377

// joinTimeout bounds a join, as Docker's clients expect.
const joinTimeout = 20 * time.Second

// resume takes the node's place in the cluster again after a restart.
func (d *Daemon) resume() error {
	state, err := d.loadMembership()
	if err != nil || state == nil {
		return err
	}
	creds, err := ca.LoadIdentity(d.path("certificates"))
	if err != nil {
		return err
	}
	m, err := d.newMember(state, creds)
	if err != nil {
		return err
	}
	d.member = m
	return m.run()
}

func (d *Daemon) stopMember() {
	d.mu.Lock()
	m := d.member
	d.member = nil
	d.mu.Unlock()
	if m == nil {
		return
	}
	if err := m.close(); err != nil {
		d.cfg.Logger.Warn("the node did not leave its loops cleanly", "error", err)
	}
}

// begin claims the right to change the node's membership.
func (d *Daemon) begin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.busy {
		return errBusy()
	}
	if d.member != nil {
		return api.Errorf(api.Unavailable, "This node is already part of a swarm. Use \"docker swarm leave\" to leave this swarm and join another one.")
	}
	d.busy = true
	return nil
}

func (d *Daemon) end(m *member) {
	d.mu.Lock()
	d.busy = false
	d.member = m
	d.mu.Unlock()
}

// Init founds a cluster with this node as its manager.
func (d *Daemon) Init(ctx context.Context, req swarm.InitRequest) (string, error) {
	if err := d.begin(); err != nil {
		return "", err
	}
	m, err := d.found(ctx, req)
	if err != nil {
		err = errors.Join(err, d.forget())
		d.end(nil)
		return "", err
	}
	d.end(m)
	return m.state.NodeID, nil
}

func (d *Daemon) found(ctx context.Context, req swarm.InitRequest) (*member, error) {
	state, err := d.addresses(req.ListenAddr, req.AdvertiseAddr, req.DataPathAddr)
	if err != nil {
		return nil, err
	}
	state.NodeID, state.Role, state.Managers = api.NewID(), swarm.NodeRoleManager, []string{state.AdvertiseAddr}
	founder := genesis.Founder{ClusterID: api.NewID(), NodeID: state.NodeID, IngressID: api.NewID()}
	creds, err := d.foundRoot(&founder, req)
	if err != nil {
		return nil, err
	}
	founder.Report = d.report(state, creds)
	ops, err := genesis.State(req, founder)
	if err != nil {
		return nil, err
	}
	m, err := d.newMember(state, creds)
	if err != nil {
		return nil, err
	}
	if err := m.manager.Bootstrap(ctx, ops); err != nil {
		return nil, errors.Join(err, m.close())
	}
	if err := errors.Join(ca.SaveIdentity(d.path("certificates"), creds), d.saveMembership(state)); err != nil {
		return nil, errors.Join(err, m.close())
	}
	if err := m.run(); err != nil {
		return nil, errors.Join(err, m.close())
	}
	if err := m.awaitReady(ctx); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

// foundRoot makes the cluster's certificate authority, tokens and gossip key.
func (d *Daemon) foundRoot(f *genesis.Founder, req swarm.InitRequest) (*ca.Credentials, error) {
	root, err := ca.NewRoot(time.Now())
	if err != nil {
		return nil, err
	}
	if f.RootKeyPEM, err = root.KeyPEM(); err != nil {
		return nil, err
	}
	f.RootCertPEM = root.CertPEM()
	f.Tokens = swarm.JoinTokens{Worker: ca.NewToken(root.Cert).Reveal(), Manager: ca.NewToken(root.Cert).Reveal()}
	f.GossipKey = make([]byte, 32)
	if _, err := rand.Read(f.GossipKey); err != nil {
		return nil, err
	}
	csr, key, err := ca.NewRequest()
	if err != nil {
		return nil, err
	}
	lifetime := req.Spec.CAConfig.NodeCertExpiry
	if lifetime == 0 {
		lifetime = genesis.DefaultCertExpiry
	}
	cert, err := root.Issue(csr, ca.Identity{NodeID: f.NodeID, Role: swarm.NodeRoleManager, ClusterID: f.ClusterID}, time.Now(), lifetime)
	if err != nil {
		return nil, err
	}
	creds, err := ca.NewCredentials(key, cert, f.RootCertPEM)
	if err == nil {
		f.TLSInfo = creds.TLSInfo()
	}
	return creds, err
}

// Join makes the node a member of another node's cluster.
func (d *Daemon) Join(ctx context.Context, req swarm.JoinRequest) error {
	if err := d.begin(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	m, err := d.enter(ctx, req)
	if err != nil {
		err = errors.Join(err, d.forget())
		d.end(nil)
		return err
	}
	d.end(m)
	return nil
}

func (d *Daemon) enter(ctx context.Context, req swarm.JoinRequest) (*member, error) {
	if len(req.RemoteAddrs) == 0 {
		return nil, api.Errorf(api.Invalid, "at least 1 RemoteAddr is required to join")
	}
	remotes := make([]string, len(req.RemoteAddrs))
	for i, r := range req.RemoteAddrs {
		remotes[i] = withPort(r)
	}
	if req.AdvertiseAddr == "" {
		addr, err := sourceAddr(remotes[0])
		if err != nil {
			return nil, err
		}
		req.AdvertiseAddr = addr
	}
	state, err := d.addresses(req.ListenAddr, req.AdvertiseAddr, req.DataPathAddr)
	if err != nil {
		return nil, err
	}
	dataPath, err := netip.ParseAddr(state.DataPathAddr)
	if err != nil {
		return nil, err
	}
	creds, err := join.Join(ctx, join.Request{
		Remotes: remotes, Token: req.JoinToken, Hostname: d.cfg.Hostname, DataPathAddr: dataPath, Availability: req.Availability,
	})
	if err != nil {
		return nil, err
	}
	id, err := ca.IdentityOf(creds.Leaf)
	if err != nil {
		return nil, err
	}
	state.NodeID, state.Role, state.Managers = id.NodeID, id.Role, remotes
	if err := errors.Join(ca.SaveIdentity(d.path("certificates"), creds), d.saveMembership(state)); err != nil {
		return nil, err
	}
	m, err := d.newMember(state, creds)
	if err != nil {
		return nil, err
	}
	if m.manager != nil {
		if err := m.manager.JoinRaft(ctx, remotes); err != nil {
			return nil, errors.Join(err, m.close())
		}
	}
	if err := m.run(); err != nil {
		return nil, errors.Join(err, m.close())
	}
	if err := m.awaitReady(ctx); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

// awaitReady returns when the managers have told the node of itself.
func (m *member) awaitReady(ctx context.Context) error {
	select {
	case <-m.ready:
		return nil
	case <-ctx.Done():
		return api.Errorf(api.Unavailable, "Timeout was reached before node joined.")
	}
}

// addresses fills in where the node listens and is reached.
func (d *Daemon) addresses(listen, advertise, dataPath string) (*membership, error) {
	listenHost, listenPort, err := splitAddr(listen, "0.0.0.0")
	if err != nil {
		return nil, api.Errorf(api.Invalid, "listen address %q: %w", listen, err)
	}
	if listenHost, err = listenAddr(listenHost); err != nil {
		return nil, err
	}
	advertiseHost, advertisePort, err := splitAddr(advertise, "")
	if err != nil {
		return nil, api.Errorf(api.Invalid, "advertise address %q: %w", advertise, err)
	}
	addr, err := resolveAddr(advertiseHost)
	if err != nil {
		return nil, err
	}
	if listenHost == "0.0.0.0" && addr.Is6() {
		listenHost = "::" // everywhere, and so also where the others are told to go
	}
	data := addr
	if dataPath != "" {
		if data, err = resolveAddr(dataPath); err != nil {
			return nil, err
		}
	}
	if advertise == "" || advertisePort == controlPort {
		advertisePort = listenPort
	}
	return &membership{
		ListenAddr:    net.JoinHostPort(listenHost, strconv.Itoa(listenPort)),
		AdvertiseAddr: net.JoinHostPort(addr.String(), strconv.Itoa(advertisePort)),
		DataPathAddr:  data.String(),
	}, nil
}

// splitAddr reads host, host:port or an interface with or without port.
func splitAddr(text, defaultHost string) (host string, port int, err error) {
	if text == "" {
		return defaultHost, controlPort, nil
	}
	host, portText, err := net.SplitHostPort(text)
	if err != nil {
		return bare(text), controlPort, nil
	}
	if host == "" {
		host = defaultHost
	}
	port, err = strconv.Atoi(portText)
	if err != nil || port < 1 || port > 65535 {
		return "", 0, fmt.Errorf("port %q is not a number from 1 to 65535", portText)
	}
	return host, port, nil
}

func withPort(addr string) string {
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	return net.JoinHostPort(bare(addr), strconv.Itoa(controlPort))
}

// bare takes the brackets off an IPv6 address that has them without a port.
func bare(host string) string {
	if inner, ok := strings.CutPrefix(host, "["); ok {
		return strings.TrimSuffix(inner, "]")
	}
	return host
}

// listenAddr turns what to listen at, an address or an interface's name, into an
// address.
func listenAddr(host string) (string, error) {
	if _, err := netip.ParseAddr(host); err == nil {
		return host, nil
	}
	addr, err := resolveAddr(host)
	return addr.String(), err
}

// resolveAddr turns an address, an interface's name or nothing into an address
// that this node has.
func resolveAddr(text string) (netip.Addr, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		if _, err := rtnl.DataPathMTU(addr); err != nil {
			return addr, api.Errorf(api.Invalid, "address %s is not one of this node's: give an address or interface of it with --advertise-addr", addr)
		}
		return addr, nil
	}
	if text != "" {
		addrs, err := rtnl.InterfaceAddrs(text)
		if err != nil {
			return netip.Addr{}, api.Errorf(api.Invalid, "interface %s: %w", text, err)
		}
		return addrs[0], nil
	}
	return onlyAddr()
}

// onlyAddr finds the node's address when there is just one to choose.
func onlyAddr() (netip.Addr, error) {
	links, err := net.Interfaces()
	if err != nil {
		return netip.Addr{}, err
	}
	var found []netip.Addr
	for _, l := range links {
		if l.Flags&net.FlagLoopback != 0 || l.Flags&net.FlagUp == 0 || l.Name == "shoal_gw" {
			continue
		}
		if addrs, err := rtnl.InterfaceAddrs(l.Name); err == nil {
			found = append(found, addrs[0])
		}
	}
	switch len(found) {
	case 0:
		return netip.Addr{}, api.Errorf(api.Invalid, "could not find the system's IP address - specify one with --advertise-addr")
	case 1:
		return found[0], nil
	}
	return netip.Addr{}, api.Errorf(api.Invalid, "could not choose an IP address to advertise since this system has multiple addresses (%v) - specify one with --advertise-addr", found)
}

// sourceAddr is the node's own address on the way to another one.
func sourceAddr(remote string) (string, error) {
	conn, err := net.Dial("udp", remote)
	if err != nil {
		return "", api.Errorf(api.Invalid, "no way to %s: %w", remote, err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).IP.String(), nil
}
