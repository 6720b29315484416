package rtnl

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// bridgeFilters are the switches of br_netfilter, which a kernel without it lacks
// (Documentation/networking/ip-sysctl.rst, bridge-nf-call-iptables).
var bridgeFilters = []string{
	"/proc/sys/net/bridge/bridge-nf-call-iptables",
	"/proc/sys/net/bridge/bridge-nf-call-ip6tables",
}

// BridgesFiltered says whether IP packets of both families that are bridged in
// this process's network namespace pass its IP filters as if they were routed.
func BridgesFiltered() (bool, error) {
	for _, name := range bridgeFilters {
		raw, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("find out whether bridges are filtered: %w", err)
		}
		if string(bytes.TrimSpace(raw)) == "0" {
			return false, nil
		}
	}
	return true, nil
}
