package vxlan

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strconv"
	"strings"
)

// RulePriority is the preference of every policy routing rule: after the
// kernel's table of local addresses, before its main table.
const RulePriority = 8300

// Names of links inside an overlay namespace.
const (
	// BridgeName is the bridge that joins local tasks and the tunnel.
	BridgeName = "br0"
	// BalancerLink is the namespace's end of the veth pair to the host.
	BalancerLink = "lb0"
)

// GatewayPrefix starts the name of every gateway bridge: by it one of an
// earlier process is known.
const GatewayPrefix = "shoal_"

// Prefixes of veth ends whose other end is elsewhere.
const (
	prefixTask     = "sv" // overlay netns ← task, on an overlay network
	prefixGateway  = "sg" // host ← task, on the gateway bridge
	prefixBalancer = "sl" // host ← overlay netns that balances
)

// TunnelName is the name of the vxlan link of a VNI.
func TunnelName(vni uint32) string { return "vx" + strconv.FormatUint(uint64(vni), 10) }

// TaskPort is the name of the outer end of a task's leg: in the overlay netns
// for a leg on a network, in the host's for a leg on the gateway bridge.
func TaskPort(taskID string, leg Interface) string {
	if leg.NetworkID == "" {
		return hashed(prefixGateway, taskID, leg.Name)
	}
	return hashed(prefixTask, taskID, leg.Name)
}

// BalancerPort is the name of the host's end of the veth pair into the overlay
// netns of a network that balances.
func BalancerPort(networkID string) string { return hashed(prefixBalancer, networkID) }

// hashed makes a link name of at most 15 bytes (IFNAMSIZ less the end) that is
// the same in every process: two letters and 48 bits of a hash.
func hashed(prefix string, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "/")))
	return prefix + hex.EncodeToString(sum[:6])
}

var (
	hostPort    = regexp.MustCompile(`^(` + prefixGateway + `|` + prefixBalancer + `)[0-9a-f]{12}$`)
	tunnelLink  = regexp.MustCompile(`^vx[0-9]+$`)
	sandboxLink = regexp.MustCompile(`^eth[0-9]+$`)
)

// OwnsHostLink says whether a link of the node's own namespace is Shoal's, or
// may be: a vxlan link with a name like ours belongs in an overlay namespace,
// so Plan deletes it only where it holds a VNI that is wanted.
func OwnsHostLink(kind, name string) bool {
	switch kind {
	case KindBridge:
		return strings.HasPrefix(name, GatewayPrefix)
	case KindVeth:
		return hostPort.MatchString(name)
	case KindVXLAN:
		return tunnelLink.MatchString(name)
	}
	return false
}

// OwnsOverlayLink says whether a link of an overlay namespace is Shoal's:
// every kind
// that Plan makes, whatever its name.
func OwnsOverlayLink(kind, _ string) bool {
	switch kind {
	case KindBridge, KindVeth, KindVXLAN, KindLoopback:
		return true
	}
	return false
}

// OwnsSandboxLink says whether a link of a task's namespace is Shoal's; what
// the task makes for itself is not.
func OwnsSandboxLink(kind, name string) bool {
	return kind == KindLoopback || (kind == KindVeth && sandboxLink.MatchString(name))
}
