package probe

import "fmt"

// messagesMax bounds how many peers are named.
const messagesMax = 16

// messages says what is wrong, way by way, and the way out.
func (t Targets) messages(ways []Way) (out []string) {
	for _, w := range ways {
		if w.Trouble != "" {
			out = append(out, fmt.Sprintf("data path to node %s (%s): %s", w.Name, w.VTEP, w.Trouble))
		}
	}
	if more := len(out) - messagesMax; more > 0 {
		out = append(out[:messagesMax], fmt.Sprintf("data path: the same or other trouble with %d more nodes", more))
	}
	if t.SoftwareChecksums {
		out = append(out, "data path: this node's network card spoils the checksums of tunnelled packets, so the kernel fills them in since; "+
			"a newer driver or firmware, or \"ethtool -K INTERFACE tx-udp_tnl-segmentation off tx-udp_tnl-csum-segmentation off\", may help")
	}
	return out
}

// trouble says what is wrong with one way, "" for nothing.
func (t Targets) trouble(p Path) string {
	switch {
	case !p.Answers:
		return fmt.Sprintf("nothing comes back; let UDP port %d pass between the nodes, both ways and without address translation", t.Port)
	case !p.Sums && t.SoftwareChecksums:
		return "packets with a checksum do not arrive although the kernel fills it in; something on the way changes them"
	case !p.Sums:
		return "packets whose checksum is left to the network card do not arrive"
	case p.MTU < t.MTU:
		return fmt.Sprintf("packets of more than %d bytes get lost on the way, and this node's interface sends %d; let the path carry %d, "+
			"set the MTU of the nodes' interfaces to %d, or create networks with --opt com.docker.network.driver.mtu=%d",
			p.MTU+t.Overhead, t.MTU+t.Overhead, t.MTU+t.Overhead, p.MTU+t.Overhead, p.MTU)
	}
	return ""
}

// fine says that a way needs no words.
func (t Targets) fine(p Path) bool { return p.Answers && p.Sums && p.MTU >= t.MTU }
