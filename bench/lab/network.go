package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// netnsDir is where ip netns keeps names.
const netnsDir = "/run/netns"

// run runs a program and puts what it said into the error.
func run(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// script runs lines of words one after the other.
func script(ctx context.Context, lines ...string) error {
	for _, line := range lines {
		if err := run(ctx, strings.Fields(line)...); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) lan() string { return l.cfg.Prefix + "-lan" }

// uplink is the machine's own link into the lab.
func (l *Lab) uplink() string { return l.cfg.Prefix + "-lab" }

// makeNetwork makes the bridge namespace, the hosts' and their links, and the
// machine's own link.
func (l *Lab) makeNetwork(ctx context.Context) error {
	lan := l.lan()
	err := script(ctx,
		"ip netns add "+lan,
		"ip -n "+lan+" link set lo up",
		"ip -n "+lan+" link add br0 type bridge",
		"ip -n "+lan+" link set br0 up",
	)
	if err != nil {
		return err
	}
	for _, h := range l.Hosts() {
		err := script(ctx,
			"ip netns add "+h.Namespace,
			"ip -n "+h.Namespace+" link set lo up",
			fmt.Sprintf("ip -n %s link add %s mtu 1500 type veth peer name eth0 mtu 1500 netns %s", lan, h.Name, h.Namespace),
			fmt.Sprintf("ip -n %s link set %s master br0 up", lan, h.Name),
			fmt.Sprintf("ip -n %s addr add %s/24 dev eth0", h.Namespace, h.Address),
			fmt.Sprintf("ip -n %s addr add %s/64 dev eth0 nodad", h.Namespace, h.Address6),
			"ip -n "+h.Namespace+" link set eth0 up",
		)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(h.Dir, 0o755); err != nil {
			return fmt.Errorf("make the directory of %s: %w", h.Name, err)
		}
	}
	return script(ctx,
		fmt.Sprintf("ip link add %s mtu 1500 type veth peer name root mtu 1500 netns %s", l.uplink(), lan),
		"ip -n "+lan+" link set root master br0 up",
		fmt.Sprintf("ip addr add %s/24 dev %s", l.Outside(), l.uplink()),
		fmt.Sprintf("ip addr add %s/64 dev %s nodad", l.Outside6(), l.uplink()),
		"ip link set "+l.uplink()+" up",
	)
}

// setLink takes a host's cable out or puts it in.
func (l *Lab) setLink(ctx context.Context, h Host, state string) error {
	return script(ctx, fmt.Sprintf("ip -n %s link set %s %s", l.lan(), h.Name, state))
}

// removeNetwork takes away the links and namespaces; missing ones are fine.
func (l *Lab) removeNetwork(ctx context.Context) error {
	var errs []error
	if _, err := os.Stat("/sys/class/net/" + l.uplink()); err == nil {
		errs = append(errs, script(ctx, "ip link del "+l.uplink()))
	}
	for _, name := range l.namespaces() {
		if _, err := os.Stat(filepath.Join(netnsDir, name)); err == nil {
			errs = append(errs, script(ctx, "ip netns del "+name))
		}
	}
	return errors.Join(errs...)
}

// namespaces are the names of all namespaces of the lab.
func (l *Lab) namespaces() []string {
	names := []string{l.lan()}
	for _, h := range l.Hosts() {
		names = append(names, h.Namespace)
	}
	return names
}

// Command is a program that runs on a host: in its network, with the machine's
// files. The mounts stay the machine's, because a remounted /sys hides cgroups.
func (h Host) Command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + filepath.Join(netnsDir, h.Namespace), "--"}, args...)...)
}
