package netview

import (
	"bufio"
	"cmp"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"shoal/dataplane/trace"
)

// mainRoutes reads the node's own routes.
func mainRoutes() ([]trace.Route, error) {
	var out []metered
	for _, f := range []struct {
		file  string
		parse func(line []string) (metered, bool)
	}{{"route", route4}, {"ipv6_route", route6}} {
		raw, err := os.ReadFile("/proc/thread-self/net/" + f.file)
		if os.IsNotExist(err) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, fmt.Errorf("routes of this node: %w", err)
		}
		for lines := bufio.NewScanner(strings.NewReader(string(raw))); lines.Scan(); {
			if r, ok := f.parse(strings.Fields(lines.Text())); ok {
				out = append(out, r)
			}
		}
	}
	slices.SortStableFunc(out, func(a, b metered) int { return cmp.Compare(a.metric, b.metric) })
	routes := make([]trace.Route, len(out))
	for i, r := range out {
		routes[i] = r.Route
	}
	return routes, nil
}

// metered is a route with what it costs.
type metered struct {
	trace.Route
	metric uint64
}

// The flags of routes (linux/route.h, linux/ipv6_route.h).
const (
	routeUp, routeGateway, routeReject = 0x1, 0x2, 0x200
	routeLocal                         = 0x80000000
)

// route4 reads a line of proc(5)'s net/route: "Iface Destination Gateway Flags
// RefCnt Use Metric Mask …", numbers in hex but for the metric.
func route4(f []string) (metered, bool) {
	if len(f) < 8 {
		return metered{}, false
	}
	flags, err := strconv.ParseUint(f[3], 16, 32)
	metric, metricErr := strconv.ParseUint(f[6], 10, 32)
	dst, dstOK := procAddr(f[1])
	via, viaOK := procAddr(f[2])
	mask, maskOK := procAddr(f[7])
	if err != nil || metricErr != nil || !dstOK || !viaOK || !maskOK || flags&routeUp == 0 || flags&routeReject != 0 {
		return metered{}, false
	}
	bits := 0
	for _, b := range mask.AsSlice() {
		for ; b&0x80 != 0; b <<= 1 {
			bits++
		}
	}
	return newRoute(netip.PrefixFrom(dst, bits), via, f[0], flags, metric), true
}

// route6 reads a line of net/ipv6_route: "destination length source length next
// metric references use flags link", all in hex.
func route6(f []string) (metered, bool) {
	if len(f) < 10 {
		return metered{}, false
	}
	dst, dstOK := wholeAddr(f[0])
	via, viaOK := wholeAddr(f[4])
	bits, err := strconv.ParseUint(f[1], 16, 8)
	metric, metricErr := strconv.ParseUint(f[5], 16, 32)
	flags, flagsErr := strconv.ParseUint(f[8], 16, 32)
	if err != nil || metricErr != nil || flagsErr != nil || !dstOK || !viaOK || flags&routeUp == 0 || flags&(routeReject|routeLocal) != 0 {
		return metered{}, false
	}
	return newRoute(netip.PrefixFrom(dst, int(bits)), via, f[9], flags, metric), true
}

func newRoute(dst netip.Prefix, via netip.Addr, link string, flags, metric uint64) metered {
	r := metered{trace.Route{Dest: dst, Link: link}, metric}
	if flags&routeGateway != 0 {
		r.Via = via
	}
	return r
}

// wholeAddr reads an IPv6 address in plain hex.
func wholeAddr(text string) (netip.Addr, bool) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != 16 {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16([16]byte(raw)), true
}
