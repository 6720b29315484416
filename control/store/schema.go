package store

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/hashicorp/go-memdb"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

// The indexes beside "id". Those marked unique have at most one object per key,
// which check.go makes sure of before anything is inserted.
const (
	byID          = "id"
	byIDPrefix    = "id_prefix"
	byName        = "name"        // cluster, service, network: unique
	byHostname    = "hostname"    // node
	byNumber      = "number"      // node, retired: unique
	byVNI         = "vni"         // network, retired: unique
	byIngress     = "ingress"     // network: unique, the routing mesh's; service: publishes in the mesh
	byNetwork     = "network"     // service: ids or names it refers to; task: ids, live tasks only; retired: the id of the removed one
	byIngressPort = "ingressport" // service: unique
	byHostPort    = "hostport"    // service
	byAddress     = "address"     // service: virtual IPs, task: live tasks; unique; retired: all
	byService     = "service"     // task
	byNode        = "node"        // task
	byStandalone  = "standalone"  // task: those of no service
)

// ingressKey is the only key of the ingress indexes.
const ingressKey = "ingress"

// standaloneKey is the only key of its index.
const standaloneKey = "standalone"

// schema describes the tables; a table is named after its kind.
func schema() *memdb.DBSchema {
	tables := map[string]*memdb.TableSchema{}
	table := func(kind api.Kind, indexes ...*memdb.IndexSchema) {
		t := &memdb.TableSchema{Name: string(kind), Indexes: map[string]*memdb.IndexSchema{
			byID: {Name: byID, Unique: true, Indexer: idIndex{}},
		}}
		for _, x := range indexes {
			t.Indexes[x.Name] = x
		}
		tables[t.Name] = t
	}
	table(api.KindCluster, index(byName, true, func(c *api.Cluster) []string { return some(c.ObjectName()) }))
	table(api.KindNode,
		index(byHostname, false, func(n *api.Node) []string { return some(n.Description.Hostname) }),
		index(byNumber, true, func(n *api.Node) []string { return someNumber(n.Number) }))
	table(api.KindNetwork,
		index(byName, true, func(n *api.Network) []string { return some(n.Spec.Name) }),
		index(byVNI, true, func(n *api.Network) []string { return someNumber(n.VNI) }),
		index(byIngress, true, networkIngress))
	table(api.KindService,
		index(byName, true, func(s *api.Service) []string { return some(s.Spec.Name) }),
		index(byNetwork, false, serviceNetworks),
		index(byIngress, false, serviceIngress),
		index(byIngressPort, true, func(s *api.Service) []string { return ports(s, swarm.PortConfigPublishModeIngress) }),
		index(byHostPort, false, func(s *api.Service) []string { return ports(s, swarm.PortConfigPublishModeHost) }),
		index(byAddress, true, virtualIPs))
	table(api.KindTask,
		index(byService, false, func(t *api.Task) []string { return some(t.ServiceID) }),
		index(byNode, false, func(t *api.Task) []string { return some(t.NodeID) }),
		index(byStandalone, false, standalone),
		index(byNetwork, false, taskNetworks),
		index(byAddress, true, taskAddresses))
	table(api.KindRetired,
		index(byNetwork, true, removedNetwork),
		index(byVNI, true, removedVNI),
		index(byNumber, true, func(r *api.Retired) []string { return someNumber(r.Number) }),
		index(byAddress, false, retiredAddresses))
	return &memdb.DBSchema{Tables: tables}
}

// keyEnd ends every key, so that no key is the beginning of another. Ids and
// names with it are refused.
const keyEnd = "\x00"

// idIndex is the primary index of every table.
type idIndex struct{}

func (idIndex) FromObject(raw any) (bool, []byte, error) {
	return true, []byte(raw.(api.Object).ObjectID() + keyEnd), nil
}

func (idIndex) FromArgs(args ...any) ([]byte, error) {
	prefix, err := idIndex{}.PrefixFromArgs(args...)
	return append(prefix, keyEnd...), err
}

func (idIndex) PrefixFromArgs(args ...any) ([]byte, error) {
	if len(args) != 1 {
		return nil, fmt.Errorf("an index takes one key, got %d", len(args))
	}
	key, ok := args[0].(string)
	if !ok {
		return nil, fmt.Errorf("an index key is a string, got %T", args[0])
	}
	return []byte(key), nil
}

// keysIndex is a secondary index: an object stands under each of its keys.
type keysIndex[T api.Object] struct{ keys func(T) []string }

func index[T api.Object](name string, unique bool, keys func(T) []string) *memdb.IndexSchema {
	return &memdb.IndexSchema{Name: name, Unique: unique, AllowMissing: true, Indexer: keysIndex[T]{keys}}
}

func (x keysIndex[T]) FromObject(raw any) (bool, [][]byte, error) {
	keys := x.keys(raw.(T))
	out := make([][]byte, len(keys))
	for i, k := range keys {
		out[i] = []byte(k + keyEnd)
	}
	return len(out) > 0, out, nil
}

func (x keysIndex[T]) FromArgs(args ...any) ([]byte, error) { return idIndex{}.FromArgs(args...) }

func some(key string) []string {
	if key == "" {
		return nil
	}
	return []string{key}
}

func someNumber(n uint32) []string {
	if n == 0 {
		return nil
	}
	return []string{strconv.FormatUint(uint64(n), 10)}
}

// add appends key unless keys has it: an index wants no key twice.
func add(keys []string, key string) []string {
	for _, k := range keys {
		if k == key {
			return keys
		}
	}
	return append(keys, key)
}

func networkIngress(n *api.Network) []string {
	if n.Spec.Ingress {
		return []string{ingressKey}
	}
	return nil
}

// serviceNetworks lists the networks a service refers to, as it refers to them.
func serviceNetworks(s *api.Service) (keys []string) {
	for _, a := range s.Spec.TaskTemplate.Networks {
		if a.Target != "" {
			keys = add(keys, a.Target)
		}
	}
	for _, v := range s.Endpoint.VirtualIPs {
		if v.NetworkID != "" {
			keys = add(keys, v.NetworkID)
		}
	}
	return keys
}

func serviceIngress(s *api.Service) []string {
	if s.Spec.EndpointSpec == nil {
		return nil
	}
	for _, p := range s.Spec.EndpointSpec.Ports {
		if p.PublishMode != swarm.PortConfigPublishModeHost {
			return []string{ingressKey}
		}
	}
	return nil
}

// ports lists the ports the service has asked for or been given in the mode.
func ports(s *api.Service, mode swarm.PortConfigPublishMode) (keys []string) {
	each := func(list []swarm.PortConfig) {
		for _, p := range list {
			if p.PublishedPort != 0 && publishMode(p) == mode {
				keys = add(keys, portKey(p))
			}
		}
	}
	if s.Spec.EndpointSpec != nil {
		each(s.Spec.EndpointSpec.Ports)
	}
	each(s.Endpoint.Ports)
	return keys
}

func publishMode(p swarm.PortConfig) swarm.PortConfigPublishMode {
	if p.PublishMode == "" {
		return swarm.PortConfigPublishModeIngress
	}
	return p.PublishMode
}

func portKey(p swarm.PortConfig) string {
	protocol := p.Protocol
	if protocol == "" {
		protocol = network.TCP
	}
	return string(protocol) + "/" + strconv.FormatUint(uint64(p.PublishedPort), 10)
}

func virtualIPs(s *api.Service) (keys []string) {
	for _, v := range s.Endpoint.VirtualIPs {
		if v.Addr.IsValid() {
			keys = add(keys, addressKey(v.NetworkID, v.Addr.Addr()))
		}
	}
	return keys
}

// addressKey tells addresses of different networks apart; an IPv4 address and
// its mapped form are one.
func addressKey(network string, addr netip.Addr) string {
	raw := addr.As16()
	return network + keyEnd + string(raw[:])
}

func standalone(t *api.Task) []string {
	if t.Standalone() {
		return []string{standaloneKey}
	}
	return nil
}

func taskNetworks(t *api.Task) (keys []string) {
	if !t.Alive() {
		return nil
	}
	for i := range t.NetworksAttachments {
		if id := t.NetworksAttachments[i].Network.ID; id != "" {
			keys = add(keys, id)
		}
	}
	return keys
}

func taskAddresses(t *api.Task) (keys []string) {
	if !t.Alive() {
		return nil
	}
	for i := range t.NetworksAttachments {
		a := &t.NetworksAttachments[i]
		for _, prefix := range a.Addresses {
			if prefix.IsValid() {
				keys = add(keys, addressKey(a.Network.ID, prefix.Addr()))
			}
		}
	}
	return keys
}
