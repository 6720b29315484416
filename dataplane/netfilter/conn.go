// Package netfilter is how the dataplane speaks with the kernel's packet filter
// inside a network namespace: tables that are wholly ours, whose rules carry a
// comment each so that a damaged table is recognised, the expressions those
// rules are made of, forgetting of tracked flows, and the few sysctls that
// translation depends on.
//
// It knows nothing of services or backends and decides nothing; dataplane/nft
// and dataplane/ipvs do.
package netfilter

import (
	"fmt"
	"os"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
)

// Conn talks to nftables in one namespace. Changes are queued by the methods of
// the embedded connection and happen together, or not at all, at Flush.
type Conn struct {
	*nftables.Conn
	ns *os.File
}

// Open connects to the namespace at path, "" for the process's own.
func Open(namespace string) (*Conn, error) {
	c := &Conn{}
	options := []nftables.ConnOption{nftables.AsLasting(), nftables.WithSockOptions(widen)}
	if namespace != "" {
		f, err := os.Open(namespace)
		if err != nil {
			return nil, fmt.Errorf("open network namespace: %w", err)
		}
		c.ns = f
		options = append(options, nftables.WithNetNSFd(int(f.Fd())))
	}
	conn, err := nftables.New(options...)
	if err != nil {
		c.closeNamespace()
		return nil, fmt.Errorf("open nftables in namespace %q: %w", namespace, err)
	}
	c.Conn = conn
	return c, nil
}

// bufferBytes bounds one transaction and its acknowledgements: the kernel takes
// it in one message. A table of some ten thousand servers needs about 2 MiB. The
// buffer is a limit, not memory that is set aside.
const bufferBytes = 32 << 20

func widen(c *netlink.Conn) error {
	if err := c.SetWriteBuffer(bufferBytes); err != nil {
		return fmt.Errorf("widen the send buffer: %w", err)
	}
	if err := c.SetReadBuffer(bufferBytes); err != nil {
		return fmt.Errorf("widen the receive buffer: %w", err)
	}
	return nil
}

// Close ends the connection; queued changes are forgotten.
func (c *Conn) Close() error {
	err := c.CloseLasting()
	c.closeNamespace()
	return err
}

func (c *Conn) closeNamespace() {
	if c.ns != nil {
		c.ns.Close()
	}
}
