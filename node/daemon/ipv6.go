package daemon

import (
	"fmt"
	"os"
	"strings"
)

// ipv6Settings is where the kernel keeps what concerns IPv6 on all links, and on
// those to come (Documentation/networking/ip-sysctl.rst). Without IPv6 it is not
// there.
const ipv6Settings = "/proc/sys/net/ipv6/conf/"

// noIPv6 finds out what of IPv6 the node can give to its tasks: why nothing at
// all, or why nothing but inside of their networks. Both are "" where nothing is in
// the way. The managers and the log are told.
func (d *Daemon) noIPv6() (none, outside string) {
	none, outside = ipv6Of(ipv6Settings)
	switch {
	case none != "":
		d.can.find("ipv6", []string{"tasks have no IPv6 here: " + none})
	case outside != "":
		d.can.find("ipv6", []string{"no IPv6 to and from the outside of tasks' networks here: " + outside})
	default:
		d.can.find("ipv6", nil)
		return "", ""
	}
	d.cfg.Logger.Warn("IPv6 is limited on this node", "inside", none, "outside", outside)
	return none, outside
}

func ipv6Of(settings string) (none, outside string) {
	if _, err := os.Stat(settings); err != nil {
		return "the kernel has no IPv6", ""
	}
	for _, links := range []string{"all", "default"} {
		file := settings + links + "/disable_ipv6"
		value, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Sprintf("the kernel does not say whether IPv6 is on: %v", err)
		}
		if strings.TrimSpace(string(value)) != "0" {
			return "", fmt.Sprintf("net.ipv6.conf.%s.disable_ipv6 is set: set it to 0 and start shoald again", links)
		}
	}
	return "", ""
}
