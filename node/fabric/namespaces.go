package fabric

import (
	"context"
	"net"

	"shoal/dataplane/sockdiag"
	"shoal/overlay/netns"
)

// Namespaces makes the tasks' network namespaces and dials from inside them.
// A namespace is named by its path.
type Namespaces interface {
	// Create makes an empty namespace; one that exists is fs.ErrExist.
	Create(path string) error
	// Delete takes it away; what does not exist is no error.
	Delete(path string) error
	Exists(path string) bool
	// Sweep deletes every namespace in dir that keep refuses.
	Sweep(dir string, keep func(path string) bool) (removed []string, err error)
	// Dial takes a numeric address. The socket stays in the namespace.
	Dial(ctx context.Context, path, network, address string) (net.Conn, error)
	// Unheard counts the clients that have connected to the task's listening TCP
	// sockets and of whom its program has read nothing yet.
	Unheard(path string) (int, error)
}

// kernelNamespaces are the kernel's.
type kernelNamespaces struct{}

func (kernelNamespaces) Create(path string) error { return netns.Create(path) }
func (kernelNamespaces) Delete(path string) error { return netns.Delete(path) }
func (kernelNamespaces) Exists(path string) bool  { return netns.Exists(path) }

func (kernelNamespaces) Sweep(dir string, keep func(path string) bool) ([]string, error) {
	return netns.Sweep(dir, keep)
}

func (kernelNamespaces) Dial(ctx context.Context, path, network, address string) (net.Conn, error) {
	return netns.Dial(ctx, path, network, address)
}

func (kernelNamespaces) Unheard(path string) (int, error) { return sockdiag.Unheard(path) }
