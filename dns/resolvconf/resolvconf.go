// Package resolvconf reads the machine's resolv.conf(5) and writes a task's. It
// is pure: text in, text out, and it never opens a file.
package resolvconf

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Port is where name servers listen.
const Port = 53

// MaxServers is how many name servers of a list are asked, as resolv.conf(5) has it.
const MaxServers = 3

// Config is what a resolv.conf says, or what a task asks for.
type Config struct {
	Servers []netip.Addr
	Search  []string
	Options []string
}

// Parse reads a resolv.conf. The last search or domain line counts, options add
// up, and what is no name server's address is left out. Comments begin with # or ;
// in the first column.
func Parse(text string) Config {
	var c Config
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || line[0] == '#' || line[0] == ';' {
			continue
		}
		switch f[0] {
		case "nameserver":
			if a, err := netip.ParseAddr(f[1]); err == nil {
				c.Servers = append(c.Servers, a)
			}
		case "search":
			c.Search = f[1:]
		case "domain":
			c.Search = f[1:2]
		case "options":
			c.Options = append(c.Options, f[1:]...)
		}
	}
	return c
}

// Targets are the first three of the servers, with the port of name servers. An
// empty list is the machine's own, as resolv.conf(5) has it.
func (c Config) Targets() []netip.AddrPort {
	servers := c.Servers
	if len(servers) == 0 {
		servers = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	return Targets(servers)
}

// Targets are the first three servers of a list, with the port of name servers.
func Targets(servers []netip.Addr) (out []netip.AddrPort) {
	for _, a := range servers[:min(len(servers), MaxServers)] {
		out = append(out, netip.AddrPortFrom(a, Port))
	}
	return out
}

// Merge is what a task gets that asks for own on a machine: each list is the
// task's when it has one, or else the machine's. A search domain "." that somebody
// asked for stands for no search list and is never in the result.
func Merge(own, machine Config) Config {
	out := machine
	if len(own.Servers) > 0 {
		out.Servers = own.Servers
	}
	if len(own.Search) > 0 {
		out.Search = slices.DeleteFunc(slices.Clone(own.Search), func(s string) bool { return s == "." })
	}
	if len(own.Options) > 0 {
		out.Options = own.Options
	}
	return out
}

// Ndots is the last valid value of the option ndots; false where none is. It is
// not bounded, although resolvers take what is above 15 as 15.
func (c Config) Ndots() (n int, set bool) {
	for _, o := range c.Options {
		if v, ok := ndots(o); ok && v >= 0 {
			n, set = v, true
		}
	}
	return n, set
}

// ndots reads an option; it is -1 for an ndots whose value makes no sense.
func ndots(option string) (value int, ok bool) {
	name, text, _ := strings.Cut(option, ":")
	if name != "ndots" {
		return 0, false
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		return -1, true
	}
	return max(n, -1), true
}

// File is the resolv.conf of a task that asks the server, with the search list
// and the options of c. An ndots without a sensible value is left out, and where
// none is left it is 0: the server knows names of a single label.
func (c Config) File(server netip.Addr) string {
	var b strings.Builder
	b.WriteString("nameserver " + server.String() + "\n")
	if len(c.Search) > 0 {
		b.WriteString("search " + strings.Join(c.Search, " ") + "\n")
	}
	options := slices.DeleteFunc(slices.Clone(c.Options), func(o string) bool { n, ok := ndots(o); return ok && n < 0 })
	if _, set := c.Ndots(); !set {
		options = append(options, "ndots:0")
	}
	b.WriteString("options " + strings.Join(options, " ") + "\n")
	return b.String()
}

// Direct is the resolv.conf of a task that asks the servers of c itself.
func (c Config) Direct() string {
	var b strings.Builder
	for _, a := range c.Servers {
		b.WriteString("nameserver " + a.String() + "\n")
	}
	if len(c.Search) > 0 {
		b.WriteString("search " + strings.Join(c.Search, " ") + "\n")
	}
	if len(c.Options) > 0 {
		b.WriteString("options " + strings.Join(c.Options, " ") + "\n")
	}
	return b.String()
}
