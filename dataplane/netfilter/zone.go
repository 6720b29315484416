package netfilter

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// AppendZone adds, at once and in a transaction of its own, a rule that tracks
// the flow's original direction in the zone whose number, two bytes long, the
// expressions leave in the first register. Flows of different zones may look
// alike; their replies share the one default zone, so that the kernel translates
// the source of the later one. The rule is recognised by its comment.
//
// The nftables library has no word for the direction of a zone, hence this way
// beside it; what is queued on the connection is not touched.
func (c *Conn) AppendZone(table, chain string, r Rule) error {
	conn, err := c.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	data, err := zoneRule(table, chain, r)
	if err != nil {
		return fmt.Errorf("rule %q of chain %s: %w", r.Comment, chain, err)
	}
	batch := func(kind netlink.HeaderType) netlink.Message {
		return netlink.Message{Header: netlink.Header{Type: kind, Flags: netlink.Request},
			Data: binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, unix.NFNETLINK_V0}, unix.NFNL_SUBSYS_NFTABLES)}
	}
	if _, err := conn.SendMessages([]netlink.Message{
		batch(unix.NFNL_MSG_BATCH_BEGIN),
		{Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE,
			Flags: netlink.Request | netlink.Acknowledge | netlink.Create | netlink.Append,
		}, Data: append([]byte{byte(nftables.TableFamilyINet), unix.NFNETLINK_V0, 0, 0}, data...)},
		batch(unix.NFNL_MSG_BATCH_END),
	}); err != nil {
		return fmt.Errorf("send rule %q of chain %s: %w", r.Comment, chain, err)
	}
	if _, err := conn.Receive(); err != nil {
		return fmt.Errorf("add rule %q to chain %s of table %s: %w", r.Comment, chain, table, err)
	}
	return nil
}

// Zone returns the comment of the one rule in a chain that AppendZone wrote, and
// how many expressions it has besides the one that sets the zone. A chain that is
// not there, or has another number of rules, returns "".
func (c *Conn) Zone(table, chain string) (comment string, exprs int, err error) {
	conn, err := c.dial()
	if err != nil {
		return "", 0, err
	}
	defer conn.Close()
	data, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: []byte(table + "\x00")},
		{Type: unix.NFTA_RULE_CHAIN, Data: []byte(chain + "\x00")},
	})
	if err != nil {
		return "", 0, err
	}
	rules, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE, Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{byte(nftables.TableFamilyINet), unix.NFNETLINK_V0, 0, 0}, data...),
	})
	if errors.Is(err, unix.ENOENT) || err == nil && len(rules) != 1 {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, fmt.Errorf("list rules of chain %s in table %s: %w", chain, table, err)
	}
	return parseZone(rules[0].Data)
}

// parseZone reads the message of a rule.
func parseZone(msg []byte) (comment string, exprs int, err error) {
	const header = 4 // struct nfgenmsg
	if len(msg) < header {
		return "", 0, fmt.Errorf("a rule of %d bytes", len(msg))
	}
	attrs, err := netlink.UnmarshalAttributes(msg[header:])
	if err != nil {
		return "", 0, fmt.Errorf("read a rule: %w", err)
	}
	for _, a := range attrs {
		switch a.Type &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER) {
		case unix.NFTA_RULE_USERDATA:
			comment = Comment(&nftables.Rule{UserData: a.Data})
		case unix.NFTA_RULE_EXPRESSIONS:
			list, err := netlink.UnmarshalAttributes(a.Data)
			if err != nil {
				return "", 0, fmt.Errorf("read the expressions of a rule: %w", err)
			}
			exprs = len(list) - 1
		}
	}
	return comment, exprs, nil
}

// dial opens netfilter in the connection's namespace.
func (c *Conn) dial() (*netlink.Conn, error) {
	config := &netlink.Config{}
	if c.ns != nil {
		config.NetNS = int(c.ns.Fd())
	}
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, config)
	if err != nil {
		return nil, fmt.Errorf("open netfilter: %w", err)
	}
	return conn, nil
}

// zoneRule is the message of a rule (NFTA_RULE_* of linux/netfilter/nf_tables.h).
func zoneRule(table, chain string, r Rule) ([]byte, error) {
	var list []netlink.Attribute
	for _, e := range r.Exprs {
		data, err := expr.Marshal(byte(nftables.TableFamilyINet), e)
		if err != nil {
			return nil, err
		}
		list = append(list, netlink.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: data})
	}
	zone, err := setZone()
	if err != nil {
		return nil, err
	}
	exprs, err := netlink.MarshalAttributes(append(list, netlink.Attribute{Type: unix.NLA_F_NESTED | unix.NFTA_LIST_ELEM, Data: zone}))
	if err != nil {
		return nil, err
	}
	return netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_RULE_TABLE, Data: []byte(table + "\x00")},
		{Type: unix.NFTA_RULE_CHAIN, Data: []byte(chain + "\x00")},
		{Type: unix.NLA_F_NESTED | unix.NFTA_RULE_EXPRESSIONS, Data: exprs},
		{Type: unix.NFTA_RULE_USERDATA, Data: userdata.AppendString(nil, userdata.TypeComment, Clip(r.Comment))},
	})
}

// setZone is the expression "ct original zone set" of the first register.
func setZone() ([]byte, error) {
	data, err := netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_CT_KEY, Data: binary.BigEndian.AppendUint32(nil, unix.NFT_CT_ZONE)},
		{Type: unix.NFTA_CT_SREG, Data: binary.BigEndian.AppendUint32(nil, Reg1)},
		{Type: unix.NFTA_CT_DIRECTION, Data: []byte{0}}, // IP_CT_DIR_ORIGINAL,
	})
	if err != nil {
		return nil, err
	}
	return netlink.MarshalAttributes([]netlink.Attribute{
		{Type: unix.NFTA_EXPR_NAME, Data: []byte("ct\x00")},
		{Type: unix.NLA_F_NESTED | unix.NFTA_EXPR_DATA, Data: data},
	})
}
