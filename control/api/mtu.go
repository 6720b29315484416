package api

import "strconv"

// MTUOption is the driver option of a network that sets the MTU of its interfaces.
const MTUOption = "com.docker.network.driver.mtu"

// The MTUs that a network may ask for, in bytes: the least that every IPv4 host
// takes whole (RFC 791), and IPv6 (RFC 8200), and what fits into a UDP datagram
// less the headers that an overlay adds.
const (
	MinMTU, MinMTUIPv6 = 576, 1280
	MaxMTU             = 65535 - 100
)

// NetworkMTU reads the MTU option of a network, 0 when it is not set.
func NetworkMTU(options map[string]string, ipv6 bool) (int, error) {
	text, set := options[MTUOption]
	if !set {
		return 0, nil
	}
	least := MinMTU
	if ipv6 {
		least = MinMTUIPv6
	}
	mtu, err := strconv.Atoi(text)
	if err != nil || mtu < least || mtu > MaxMTU {
		return 0, Errorf(Invalid, "option %s: %q is no MTU: give a number of bytes from %d to %d, or leave the option out to have it derived from the data path",
			MTUOption, text, least, MaxMTU)
	}
	return mtu, nil
}

// MTU returns what the network's MTU option asks for, 0 for none.
func (n *Network) MTU() int {
	options := n.Spec.DriverConfiguration
	if options == nil {
		options = &n.DriverState
	}
	mtu, err := NetworkMTU(options.Options, false)
	if err != nil {
		return 0 // refused when the network is made; the derived one serves
	}
	return mtu
}
