// Package ipvs balances with the kernel's IP virtual server: lb.Driver "ipvs".
//
// A front of one port is an IPVS service of that address, protocol and port. A
// front of every port is a service of a packet mark, and a small table of ours
// ("inet shoal_ipvs") sets the mark. That table also hides clients behind the
// namespace's own address where that is asked for, answers pings of a front, and
// refuses what IPVS does not take, so that a connection whose server went away
// is reset instead of hanging.
//
// Servers are reached by translation of the destination; replies pass through
// the namespace that balanced, which is the client's own or has masqueraded.
// Draining is weight 0: established flows go on, new ones go elsewhere.
//
// The IPVS services of a namespace belong to this driver, all of them.
package ipvs

import (
	"context"
	"fmt"
	"hash/fnv"
	"sync"

	"github.com/moby/ipvs"

	"shoal/dataplane/lb"
	"shoal/dataplane/netfilter"
)

// Driver is lb.Driver on IPVS. Its methods may be called at the same time for
// different namespaces; calls for one are serialised.
type Driver struct {
	locks      [lockStripes]sync.Mutex
	mu         sync.Mutex
	algorithms map[lb.Algorithm]error // as Supports found them
}

// lockStripes bounds the locks: namespaces share them by hash.
const lockStripes = 64

// New returns a driver; ask Probe first whether the kernel has IPVS.
func New() *Driver { return &Driver{algorithms: map[lb.Algorithm]error{}} }

// Name is "ipvs".
func (d *Driver) Name() string { return "ipvs" }

// Read returns what the namespace balances. A front of every port counts only
// while packets to it are marked.
func (d *Driver) Read(ctx context.Context, namespace string) (lb.Desired, error) {
	defer d.lock(namespace)()
	k, err := open(namespace)
	if err != nil {
		return lb.Desired{}, err
	}
	defer k.close()
	st, err := k.read(ctx, lb.Desired{Namespace: namespace})
	return st.balance, err
}

// Apply makes the namespace balance d and returns how many objects changed. It
// stops at the first operation that the kernel refuses.
func (d *Driver) Apply(ctx context.Context, wish lb.Desired) (int, error) {
	wish, err := wish.Canonical()
	if err != nil {
		return 0, err
	}
	for _, s := range wish.Services {
		if err := d.Supports(s.Algorithm); err != nil {
			return 0, fmt.Errorf("balance %s: %w", s.Front, err)
		}
	}
	defer d.lock(wish.Namespace)()
	k, err := open(wish.Namespace)
	if err != nil {
		return 0, err
	}
	defer k.close()
	changed, err := k.apply(ctx, wish)
	if err != nil {
		return changed, fmt.Errorf("balance in namespace %q: %w", wish.Namespace, err)
	}
	return changed, nil
}

// kernel is one namespace's IPVS and packet filter.
type kernel struct {
	namespace string
	vs        *ipvs.Handle
	nf        *netfilter.Conn
}

func open(namespace string) (*kernel, error) {
	vs, err := ipvs.New(namespace)
	if err != nil {
		return nil, fmt.Errorf("open ipvs in namespace %q: %w", namespace, err)
	}
	nf, err := netfilter.Open(namespace)
	if err != nil {
		vs.Close()
		return nil, err
	}
	return &kernel{namespace: namespace, vs: vs, nf: nf}, nil
}

func (k *kernel) close() {
	k.vs.Close()
	k.nf.Close()
}

// lock serialises the work on one namespace and returns how to end it.
func (d *Driver) lock(namespace string) (unlock func()) {
	h := fnv.New32a()
	h.Write([]byte(namespace))
	l := &d.locks[h.Sum32()%lockStripes]
	l.Lock()
	return l.Unlock
}
