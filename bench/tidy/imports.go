package tidy

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

const module = "shoal"

// rank orders the rooms: a package imports only packages of a lower rank. The
// longest matching prefix counts.
var rank = map[string]int{
	"control/api": 0, "overlay/netns": 0,
	"control/store": 1, "control/alloc": 1, "control/schedule": 1, "control/orchestrate": 1,
	"overlay/endpoint": 1, "overlay/vxlan": 1, "overlay/wireguard": 1, "dataplane/lb": 1, "dataplane/trace": 1, "dataplane/netfilter": 1, "dns/zone": 1, "dns/resolvconf": 1,
	"control/fsm": 2, "control/raftnode": 2, "control/ca": 2, "control/rpc": 2, "control/dockerapi/wire": 2,
	"overlay/gossip": 2, "overlay/rtnl": 2, "overlay/wglink": 2, "overlay/probe": 2, "dataplane/ipvs": 2, "dataplane/nft": 2, "dataplane/bpf": 2, "dataplane/probe": 2, "dataplane/sockdiag": 2,
	"dns/server": 2, "node/runtime": 2, "node/volume": 2,
	"control/leader": 3, "control/dispatch": 3, "control/join": 3, "control/genesis": 3, "control/dockerapi": 3,
	"control/web": 3, "node/engineapi": 3, "node/plan": 3, "node/reconcile": 3, "node/resolver": 3, "node/agent": 3, "node/standalone": 3, "node/fabric": 3, "node/peer": 3,
	"control/manager": 4, "node/netview": 4, "node/metrics": 4, "node/presence": 4, "node/daemon": 5,
	"cmd": 6, "bench": 7,
}

// sameRank lists the imports within a rank that the plan of the house allows.
var sameRank = map[string][]string{
	"control/alloc":       {"control/store"},
	"control/schedule":    {"control/store", "control/schedule"},
	"control/orchestrate": {"control/store", "control/orchestrate", "control/schedule"},
	"control/fsm":         {},
	"control/raftnode":    {"control/fsm", "control/rpc"},
	"control/rpc":         {"control/ca"},
	"control/dispatch":    {"control/rpc"},
	"control/join":        {"control/dispatch"},
	"dataplane/trace":     {"dataplane/lb"},
	"node/runtime":        {"node/runtime"},
	"node/agent":          {"node/plan"},
	"node/fabric":         {"node/plan", "node/reconcile", "node/resolver"},
	"control/dockerapi":   {"control/dockerapi"},
	"overlay/vxlan":       {"overlay/vxlan"},
	"dataplane/lb":        {"dataplane/lb"},
	"node/standalone":     {"node/agent"},
	"node/engineapi":      {"node/fabric", "node/agent", "node/plan", "node/standalone"},
	"node/metrics":        {"node/netview"},
}

// floors says which other rooms a room may import at all.
var floors = map[string][]string{
	"control":   {"control"},
	"overlay":   {"overlay"},
	"dns":       {"dns"},
	"dataplane": {"dataplane", "overlay"},
	"node":      {"node", "control", "overlay", "dataplane", "dns"},
	"cmd":       {"cmd", "node", "control", "overlay", "dataplane", "dns"},
	"bench":     {"bench", "cmd", "node", "control", "overlay", "dataplane", "dns"},
}

// banned are modules that Shoal replaces, by the path they start with.
var banned = []string{"github.com/moby/swarmkit", "github.com/docker/docker/libnetwork", "github.com/moby/libnetwork"}

// Imports complains about imports against the order of the house. bench/need may
// be imported by any test.
func Imports(files []File) (complaints []string) {
	for _, f := range files {
		for _, spec := range f.Syntax.Imports {
			target, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				continue
			}
			if why := judge(f, target); why != "" {
				complaints = append(complaints, fmt.Sprintf("%s imports %s: %s", f.Path, target, why))
			}
		}
	}
	return complaints
}

func judge(f File, target string) string {
	for _, b := range banned {
		if strings.HasPrefix(target, b) {
			return "Shoal replaces it"
		}
	}
	target, ours := strings.CutPrefix(target, module+"/")
	if !ours {
		return ""
	}
	from := f.Package()
	if f.Test() && (target == "bench/need" || strings.HasPrefix(path.Base(target), path.Base(from))) {
		return ""
	}
	if from == target || strings.HasPrefix(target, from+"/") && f.Test() {
		return ""
	}
	if !slices.Contains(floors[room(from)], room(target)) {
		return "the rooms are not joined"
	}
	if f.Test() {
		return ""
	}
	return judgeRank(from, target)
}

func judgeRank(from, target string) string {
	fromName, fromRank, ok := ranked(from)
	if !ok {
		return from + " has no rank"
	}
	targetName, targetRank, ok := ranked(target)
	if !ok {
		return target + " has no rank"
	}
	if targetRank < fromRank || fromName == "bench" || fromName == "cmd" {
		return ""
	}
	if targetRank == fromRank && slices.Contains(sameRank[fromName], targetName) {
		return ""
	}
	return fmt.Sprintf("rank %d may not import rank %d", fromRank, targetRank)
}

func room(pkg string) string {
	first, _, _ := strings.Cut(pkg, "/")
	return first
}

// ranked finds the entry of the rank table that covers a package.
func ranked(pkg string) (name string, r int, ok bool) {
	for p := pkg; p != "."; p = path.Dir(p) {
		if r, ok := rank[p]; ok {
			return p, r, true
		}
	}
	return "", 0, false
}
