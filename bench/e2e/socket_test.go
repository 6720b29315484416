//go:build lab

package e2e

import "syscall"

// errInUse is what binding and connecting say of a pair of addresses that is taken.
var errInUse = syscall.EADDRNOTAVAIL

// reuseAddr lets several connections of a client share its address and port.
func reuseAddr(_, _ string, c syscall.RawConn) (err error) {
	if controlErr := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	}); controlErr != nil {
		return controlErr
	}
	return err
}
