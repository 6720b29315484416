package daemon

import (
	"maps"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"shoal/control/api"
	"shoal/dataplane/lb"
)

// capabilities gathers what the node can do: what is found out at the start, and
// what self-tests find while it runs. The managers hear of a change with the next
// report.
type capabilities struct {
	mu       sync.Mutex
	can      api.Capabilities
	findings map[string][]string // messages by test
}

// newCapabilities asks the kernel and the balancer once.
func newCapabilities(balancer lb.Driver) *capabilities {
	c := &capabilities{findings: map[string][]string{}}
	c.can.Kernel = kernelRelease()
	c.can.Balancer = balancer.Name()
	for _, a := range lb.Algorithms {
		if err := balancer.Supports(a); err != nil {
			c.lack(api.MissingAlgorithm(string(a)), err)
			continue
		}
		c.can.Algorithms = append(c.can.Algorithms, string(a))
	}
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		c.lack("ipv6", err)
	} else {
		c.can.IPv6 = true
	}
	return c
}

// lack notes why the node cannot do something.
func (c *capabilities) lack(what string, why error) {
	c.set(func(can *api.Capabilities) {
		missing := maps.Clone(can.Missing)
		if missing == nil {
			missing = map[string]string{}
		}
		missing[what] = why.Error()
		can.Missing = missing
	})
}

// set changes what the node can do. Slices and maps that can holds must be
// replaced, never changed.
func (c *capabilities) set(change func(can *api.Capabilities)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(&c.can)
}

// find replaces what the named self-test found; no messages means all is well.
func (c *capabilities) find(test string, messages []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(messages) == 0 {
		delete(c.findings, test)
		return
	}
	c.findings[test] = slices.Clone(messages)
}

// report is what the managers are told.
func (c *capabilities) report() api.Capabilities {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.can
	out.Messages = nil
	for _, messages := range c.findings {
		out.Messages = append(out.Messages, messages...)
	}
	slices.Sort(out.Messages)
	return out
}

// kernelRelease is the kernel's name as uname prints it, "" when it does not say.
func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
