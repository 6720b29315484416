package netfilter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"shoal/overlay/netns"
)

// Tracked is a tracked flow with what went over it.
type Tracked struct {
	Flow
	// Sent went the way of the flow's first packet, Received the other way. They
	// stay zero for flows that began before the namespace accounted.
	Sent, Received Traffic
	// Zone is what tells flows apart that otherwise look alike.
	Zone uint16
	// Ended says that a TCP connection is over, and only remembered.
	Ended bool
}

// Traffic counts packets, and bytes with their IP headers.
type Traffic struct{ Packets, Bytes uint64 }

// The attributes of a flow (enum ctattr_type and the like of
// linux/netfilter/nfnetlink_conntrack.h).
const (
	ctaOriginal, ctaReply, ctaProtoInfo        = 1, 2, 4
	ctaCountersOriginal, ctaCountersReply      = 9, 10
	ctaZone                                    = 18
	ctaTupleIP, ctaTupleProto, ctaTupleZone    = 1, 2, 3
	ctaSource4, ctaDest4, ctaSource6, ctaDest6 = 1, 2, 3, 4
	ctaProtoNumber, ctaSourcePort, ctaDestPort = 1, 2, 3
	ctaPackets, ctaBytes                       = 1, 2
	ctaTCP, ctaTCPState                        = 1, 1

	ctGet                           = 1       // IPCTNL_MSG_CT_GET
	tcpLastAck, tcpTimeWait, tcpEnd = 6, 7, 8 // enum tcp_conntrack
)

// Flows returns the tracked flows of a namespace, both families, in one reading
// of the table. A table without flows costs no reading.
func Flows(namespace string) ([]Tracked, error) {
	if n, err := flowCount(namespace); err != nil || n == 0 {
		return nil, err
	}
	config := &netlink.Config{}
	if namespace != "" {
		f, err := os.Open(namespace)
		if err != nil {
			return nil, fmt.Errorf("open network namespace: %w", err)
		}
		defer f.Close()
		config.NetNS = int(f.Fd())
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, config)
	if err != nil {
		return nil, fmt.Errorf("open conntrack in namespace %q: %w", namespace, err)
	}
	defer conn.Close()
	messages, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_CTNETLINK<<8 | ctGet, Flags: netlink.Request | netlink.Dump},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		return nil, fmt.Errorf("list flows in namespace %q: %w", namespace, err)
	}
	out := make([]Tracked, 0, len(messages))
	for _, m := range messages {
		if t, err := parseFlow(m.Data); err == nil {
			out = append(out, t)
		}
	}
	return out, nil
}

// flowCount is how many flows the namespace has, 0 where flows are not tracked.
func flowCount(namespace string) (n int, err error) {
	err = netns.Do(namespace, func() error {
		raw, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err == nil {
			n, err = strconv.Atoi(strings.TrimSpace(string(raw)))
		}
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("count flows in namespace %q: %w", namespace, err)
	}
	return n, nil
}

// errShort is the refusal of a message that is cut off.
var errShort = errors.New("a flow's message is too short")

// parseFlow reads one message.
func parseFlow(msg []byte) (t Tracked, err error) {
	const header = 4 // struct nfgenmsg
	if len(msg) < header {
		return t, errShort
	}
	d, err := netlink.NewAttributeDecoder(msg[header:])
	if err != nil {
		return t, err
	}
	d.ByteOrder = binary.BigEndian
	var original, reply tuple
	for d.Next() {
		switch d.Type() {
		case ctaOriginal:
			d.Nested(original.parse)
		case ctaReply:
			d.Nested(reply.parse)
		case ctaCountersOriginal:
			d.Nested(t.Sent.parse)
		case ctaCountersReply:
			d.Nested(t.Received.parse)
		case ctaZone:
			t.Zone = d.Uint16()
		case ctaProtoInfo:
			d.Nested(func(d *netlink.AttributeDecoder) error { return parseState(d, &t.Ended) })
		}
	}
	if original.zone != 0 {
		t.Zone = original.zone
	}
	t.Flow = Flow{Protocol: original.protocol, Source: original.source(), Dest: original.dest(), Server: reply.source()}
	return t, d.Err()
}

// tuple is one direction of a flow.
type tuple struct {
	src, dst         netip.Addr
	srcPort, dstPort uint16
	protocol         byte
	zone             uint16
}

func (t *tuple) source() netip.AddrPort { return netip.AddrPortFrom(t.src, t.srcPort) }
func (t *tuple) dest() netip.AddrPort   { return netip.AddrPortFrom(t.dst, t.dstPort) }

func (t *tuple) parse(d *netlink.AttributeDecoder) error {
	for d.Next() {
		switch d.Type() {
		case ctaTupleIP:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					a, _ := netip.AddrFromSlice(d.Bytes())
					switch d.Type() {
					case ctaSource4, ctaSource6:
						t.src = a
					case ctaDest4, ctaDest6:
						t.dst = a
					}
				}
				return d.Err()
			})
		case ctaTupleProto:
			d.Nested(func(d *netlink.AttributeDecoder) error {
				for d.Next() {
					switch d.Type() {
					case ctaProtoNumber:
						t.protocol = d.Uint8()
					case ctaSourcePort:
						t.srcPort = d.Uint16()
					case ctaDestPort:
						t.dstPort = d.Uint16()
					}
				}
				return d.Err()
			})
		case ctaTupleZone:
			t.zone = d.Uint16()
		}
	}
	return d.Err()
}

func (t *Traffic) parse(d *netlink.AttributeDecoder) error {
	for d.Next() {
		switch d.Type() {
		case ctaPackets:
			t.Packets = d.Uint64()
		case ctaBytes:
			t.Bytes = d.Uint64()
		}
	}
	return d.Err()
}

// parseState notes whether a TCP connection is over (enum tcp_conntrack).
func parseState(d *netlink.AttributeDecoder, ended *bool) error {
	for d.Next() {
		if d.Type() != ctaTCP {
			continue
		}
		d.Nested(func(d *netlink.AttributeDecoder) error {
			for d.Next() {
				if d.Type() == ctaTCPState {
					state := d.Uint8()
					*ended = state == tcpLastAck || state == tcpTimeWait || state == tcpEnd
				}
			}
			return d.Err()
		})
	}
	return d.Err()
}
