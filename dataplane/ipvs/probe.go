package ipvs

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"

	"github.com/moby/ipvs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"shoal/dataplane/lb"
	"shoal/dataplane/netfilter"
	"shoal/overlay/netns"
)

// ErrMissing is wrapped by the errors of Probe.
var ErrMissing = errors.New("ipvs is missing from this kernel")

// Probe returns nil, or why this kernel cannot do what the driver needs. It tries
// to load the module where there is one.
func Probe(ctx context.Context) error {
	// Where it is built in, or not allowed, this fails; the question below decides.
	_ = exec.CommandContext(ctx, "modprobe", "-q", "ip_vs").Run()
	if _, err := netlink.GenlFamilyGet("IPVS"); err != nil {
		return fmt.Errorf("%w: generic netlink family: %w", ErrMissing, err)
	}
	if err := tryScheduler(string(lb.RoundRobin)); err != nil {
		return fmt.Errorf("%w: scheduler rr: %w", ErrMissing, err)
	}
	c, err := netfilter.Open("")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMissing, err)
	}
	defer c.Close()
	l := layout(true, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")})
	l.Table = "shoal_probe_ipvs"
	if err := c.Replace(l); err != nil {
		return err
	}
	c.Drop(l.Table)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("%w: its packet filter rules: %w", ErrMissing, err)
	}
	return nil
}

// Supports asks the kernel, once for each algorithm, whether it has the scheduler.
func (d *Driver) Supports(a lb.Algorithm) error {
	switch a {
	case "":
		a = lb.RoundRobin
	case lb.RoundRobin, lb.WeightedRoundRobin, lb.LeastConn, lb.WeightedLeastConn, lb.SourceHash, lb.Maglev:
	default:
		return fmt.Errorf("ipvs cannot balance by %q: no such algorithm", a)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	known, ok := d.algorithms[a]
	if !ok {
		known = tryScheduler(string(a))
		if known != nil {
			known = fmt.Errorf("ipvs cannot balance by %q: %w", a, known)
		}
		d.algorithms[a] = known
	}
	return known
}

// tryScheduler makes a service with the scheduler in a namespace of its own.
func tryScheduler(name string) error {
	return netns.Scratch(func(path string) error {
		vs, err := ipvs.New(path)
		if err != nil {
			return err
		}
		defer vs.Close()
		err = vs.NewService(&ipvs.Service{FWMark: 1, AddressFamily: unix.AF_INET, SchedName: name, Netmask: ^uint32(0)})
		if errors.Is(err, unix.ENOENT) {
			err = fmt.Errorf("the kernel has no scheduler ip_vs_%s", name)
		}
		return err
	})
}
