package rtnl

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"shoal/overlay/netns"
)

// space is an open namespace with a socket inside.
type space struct {
	ns      *netns.Handle
	socket  *nl.SocketHandle // for requests that netlink has no call for
	netlink *netlink.Handle
	// index caches the numbers of links during one Apply.
	index map[string]int
}

// file is where a path of the model is in the file system.
func (k *Kernel) file(path string) string {
	if path == "" {
		return k.config.Host
	}
	return path
}

// overlay says whether a path is one of an overlay namespace.
func (k *Kernel) overlay(path string) bool {
	return filepath.Dir(path) == filepath.Clean(k.config.Directory) && strings.HasPrefix(filepath.Base(path), k.config.Prefix)
}

// open returns the namespace at path, from the cache while the path still names
// the same one. A missing namespace is fs.ErrNotExist; of an overlay namespace
// that lost its name the sockets are kept for bury.
func (k *Kernel) open(path string) (*space, error) {
	file := k.file(path)
	cached := k.spaces[path]
	if file != "" {
		id, exists := netns.Identify(file)
		if cached != nil && id != cached.ns.ID() && (exists || !k.overlay(path)) {
			k.drop(path)
			cached = nil
		}
		if !exists {
			return nil, fs.ErrNotExist
		}
	}
	if cached != nil {
		return cached, nil
	}
	s, err := openSpace(file)
	if err != nil {
		return nil, err
	}
	k.spaces[path] = s
	return s, nil
}

func openSpace(file string) (*space, error) {
	ns, err := netns.Open(file)
	if err != nil {
		return nil, err
	}
	s := &space{ns: ns, index: make(map[string]int)}
	err = ns.Do(func() error {
		var err error
		if s.netlink, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
			return err
		}
		socket, err := nl.Subscribe(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		s.socket = &nl.SocketHandle{Socket: socket}
		timeout := unix.NsecToTimeval(replyTimeout.Nanoseconds())
		return errors.Join(s.netlink.SetSocketTimeout(replyTimeout),
			socket.SetSendTimeout(&timeout), socket.SetReceiveTimeout(&timeout))
	})
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *space) close() {
	if s.netlink != nil {
		s.netlink.Close()
	}
	if s.socket != nil {
		s.socket.Close()
	}
	s.ns.Close()
}

// drop forgets a namespace, so that nothing here keeps it alive.
func (k *Kernel) drop(path string) {
	if s := k.spaces[path]; s != nil {
		s.close()
		delete(k.spaces, path)
	}
}

// forget drops the namespaces that are not in keep and carry no tunnels.
func (k *Kernel) forget(keep map[string]kind) {
	for path := range k.spaces {
		if _, ok := keep[path]; !ok && !k.underlays[path] {
			k.drop(path)
		}
	}
}

// bury makes room for a new namespace at path: where an older one lost its name
// but is still open here, its links go now instead of when the kernel gets to
// it, because a vxlan link holds its VNI until it is gone.
func (k *Kernel) bury(path string) {
	s := k.spaces[path]
	if s == nil || netns.Exists(k.file(path)) {
		return
	}
	if links, err := dump(s.netlink.LinkList); err == nil {
		for _, link := range links {
			_ = s.netlink.LinkDel(link) // what cannot be deleted goes with the namespace
		}
	}
	k.drop(path)
}
