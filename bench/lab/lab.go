// Package lab makes several hosts of one machine: network namespaces joined by
// a bridge, one containerd for all and a shoald in each. It starts, cuts, heals
// and takes away only what it made, and it never looks inside the daemons: it
// speaks to them over the Docker API like any other client.
package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Defaults of a Config.
const (
	DefaultDir    = "/run/shoal-lab"
	DefaultPrefix = "shoal"
	DefaultSubnet = "10.77.0.0/24"
	DefaultHosts  = 3
	// Managers is how many of the first hosts are managers.
	Managers = 3
	// MaxHosts keeps host addresses clear of the machine's own.
	MaxHosts = 200
	// outside is the number of the machine's own address.
	outside = 254
)

// Config says what lab to make. Zero values are the defaults.
type Config struct {
	// Hosts is how many, 1 to MaxHosts.
	Hosts int
	// Dir holds everything of the lab; it must not exist before Up.
	Dir string
	// Prefix begins the names of namespaces: PREFIX-lan and PREFIX-hN.
	Prefix string
	// Subnet is a /24; host N has its Nth address, the machine itself the 254th.
	Subnet string
	// Underlay6 makes the hosts speak with each other over IPv6.
	Underlay6 bool
	// Shoald is the daemon's program; "" makes a lab without daemons.
	Shoald string
	// DaemonFlags are put behind shoald's own.
	DaemonFlags []string
	// Heartbeat is how often nodes tell a manager that they live, the daemon's
	// default when zero. A slow machine needs longer to restart a daemon.
	Heartbeat time.Duration
	// Images are archives that are loaded on every host.
	Images []string
	// Loose leaves the daemons each on its own: no cluster, no images.
	Loose bool
	// Patience bounds every wait for a daemon, two minutes when zero.
	Patience time.Duration
}

// Lab is a lab that is up, or was.
type Lab struct {
	cfg    Config
	subnet netip.Prefix
}

// Host is one host of a lab.
type Host struct {
	// Index counts from 1.
	Index int
	// Name is hN, Namespace the name of its network namespace and of its
	// containerd namespace.
	Name, Namespace string
	Address         netip.Addr
	// Address6 is its IPv6 address; every lab has both.
	Address6 netip.Addr
	// Reached is the one that it speaks with the others by.
	Reached netip.Addr
	// Dir is its state, Socket its API.
	Dir, Socket string
}

// New describes a lab without touching anything.
func New(cfg Config) (*Lab, error) {
	if cfg.Hosts == 0 {
		cfg.Hosts = DefaultHosts
	}
	if cfg.Patience == 0 {
		cfg.Patience = 2 * time.Minute
	}
	for field, value := range map[*string]string{&cfg.Dir: DefaultDir, &cfg.Prefix: DefaultPrefix, &cfg.Subnet: DefaultSubnet} {
		if *field == "" {
			*field = value
		}
	}
	subnet, err := netip.ParsePrefix(cfg.Subnet)
	if err != nil || !subnet.Addr().Is4() || subnet.Bits() != 24 {
		return nil, fmt.Errorf("lab subnet %q is not an IPv4 /24", cfg.Subnet)
	}
	if cfg.Hosts < 1 || cfg.Hosts > MaxHosts {
		return nil, fmt.Errorf("a lab has 1 to %d hosts, not %d", MaxHosts, cfg.Hosts)
	}
	if !filepath.IsAbs(cfg.Dir) || filepath.Clean(cfg.Dir) == "/" {
		return nil, fmt.Errorf("lab directory %q is not an absolute path of its own", cfg.Dir)
	}
	// A link's name is at most 15 characters long.
	if len(cfg.Prefix) < 1 || len(cfg.Prefix) > 10 {
		return nil, fmt.Errorf("lab prefix %q is not 1 to 10 characters long", cfg.Prefix)
	}
	cfg.Dir = filepath.Clean(cfg.Dir)
	return &Lab{cfg: cfg, subnet: subnet.Masked()}, nil
}

// Open finds the lab that is up in a directory.
func Open(dir string) (*Lab, error) {
	raw, err := os.ReadFile(filepath.Join(dir, "lab.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no lab is up in %s", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read the lab's description: %w", err)
	}
	var cfg Config
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return nil, fmt.Errorf("decode the lab's description: %w", err)
	}
	return New(cfg)
}

// made reports whether the lab's directory exists.
func (l *Lab) made() bool {
	_, err := os.Lstat(l.cfg.Dir)
	return err == nil
}

func (l *Lab) save() error {
	raw, err := json.MarshalIndent(l.cfg, "", "\t")
	if err != nil {
		return fmt.Errorf("encode the lab's description: %w", err)
	}
	if err := os.WriteFile(filepath.Join(l.cfg.Dir, "lab.json"), raw, 0o644); err != nil {
		return fmt.Errorf("write the lab's description: %w", err)
	}
	return nil
}

// Hosts are the lab's hosts in order.
func (l *Lab) Hosts() []Host {
	hosts := make([]Host, l.cfg.Hosts)
	for i := range hosts {
		name := "h" + strconv.Itoa(i+1)
		dir := filepath.Join(l.cfg.Dir, name)
		hosts[i] = Host{
			Index: i + 1, Name: name, Namespace: l.cfg.Prefix + "-" + name, Address: l.address(i + 1),
			Address6: l.address6(i + 1), Dir: dir, Socket: filepath.Join(dir, "shoal.sock"),
		}
		hosts[i].Reached = hosts[i].Address
		if l.cfg.Underlay6 {
			hosts[i].Reached = hosts[i].Address6
		}
	}
	return hosts
}

// Host finds one host by name or number: h2 or 2.
func (l *Lab) Host(name string) (Host, error) {
	n, err := strconv.Atoi(strings.TrimPrefix(name, "h"))
	if err != nil || n < 1 || n > l.cfg.Hosts {
		return Host{}, fmt.Errorf("the lab has h1 to h%d, not %q", l.cfg.Hosts, name)
	}
	return l.Hosts()[n-1], nil
}

// Outside is the machine's own address in the lab: of a client that is no host.
func (l *Lab) Outside() netip.Addr { return l.address(outside) }

// Outside6 is the machine's own IPv6 address in the lab.
func (l *Lab) Outside6() netip.Addr { return l.address6(outside) }

// Manager reports whether the host is one of the managers.
func (h Host) Manager() bool { return h.Index <= Managers }

// Pid is the file with the daemon's process.
func (h Host) pidFile() string { return filepath.Join(h.Dir, "shoald.pid") }

// LogFile is the file with the daemon's own log.
func (h Host) LogFile() string { return filepath.Join(h.Dir, "shoald.log") }

func (l *Lab) address(n int) netip.Addr {
	octets := l.subnet.Addr().As4()
	octets[3] = byte(n)
	return netip.AddrFrom4(octets)
}

// address6 is made of the IPv4 one, so that labs beside each other differ.
func (l *Lab) address6(n int) netip.Addr {
	four := l.address(n).As4()
	return netip.AddrFrom16([16]byte{0: 0xfd, 4: four[0], 5: four[1], 6: four[2], 15: four[3]})
}

// Up makes the lab and returns when every node is ready and every image is on
// every host, or, of a loose lab, when every daemon answers. After a failure
// everything it made is taken away, except the logs, whose ends are in the error.
func (l *Lab) Up(ctx context.Context) error {
	for _, name := range l.namespaces() {
		if _, err := os.Lstat(filepath.Join(netnsDir, name)); err == nil && !l.made() {
			return fmt.Errorf("namespace %s exists already: another lab has the prefix %q", name, l.cfg.Prefix)
		}
	}
	if err := os.Mkdir(l.cfg.Dir, 0o755); err != nil {
		if errors.Is(err, os.ErrExist) {
			return fmt.Errorf("%s exists already: a lab is up, or was not taken down", l.cfg.Dir)
		}
		return fmt.Errorf("make the lab's directory: %w", err)
	}
	err := l.build(ctx)
	if err == nil {
		return nil
	}
	return errors.Join(fmt.Errorf("lab: %w", err), l.Down(context.WithoutCancel(ctx)))
}

func (l *Lab) build(ctx context.Context) error {
	if err := l.save(); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{l.makeNetwork, l.startContainerd, l.startDaemons} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if l.cfg.Shoald == "" || l.cfg.Loose {
		return nil
	}
	if err := l.form(ctx); err != nil {
		return err
	}
	return l.loadImages(ctx)
}
