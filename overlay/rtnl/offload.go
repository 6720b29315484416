package rtnl

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Commands of linux/ethtool.h: read and set whether a link leaves the checksums
// of what it sends to the hardware below it.
const (
	getTxChecksum = 0x16 // ETHTOOL_GTXCSUM
	setTxChecksum = 0x17 // ETHTOOL_STXCSUM
)

// ethtoolValue is struct ethtool_value.
type ethtoolValue struct{ command, data uint32 }

// ethtoolRequest is struct ifreq with a pointer in it.
type ethtoolRequest struct {
	name [unix.IFNAMSIZ]byte
	data unsafe.Pointer
	_    [16]byte // the rest of the union
}

// softwareChecksums says that the link fills in checksums itself. A link that
// does not say leaves them to the hardware.
func (s *space) softwareChecksums(link string) bool {
	v := ethtoolValue{command: getTxChecksum}
	return s.ethtool(link, &v) == nil && v.data == 0
}

func (s *space) setSoftwareChecksums(link string) error {
	return s.ethtool(link, &ethtoolValue{command: setTxChecksum})
}

func (s *space) ethtool(link string, v *ethtoolValue) error {
	r := ethtoolRequest{data: unsafe.Pointer(v)}
	copy(r.name[:unix.IFNAMSIZ-1], link)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.socket.Socket.GetFd()), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&r)))
	runtime.KeepAlive(v)
	if errno != 0 {
		return fmt.Errorf("ethtool command %#x on link %s: %w", v.command, link, errno)
	}
	return nil
}
