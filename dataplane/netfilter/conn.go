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
	options := []nftables.ConnOption{nftables.AsLasting()}
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
