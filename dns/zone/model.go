// Package zone answers names from a task's point of view: services, tasks,
// aliases, containers and reverse names of the networks the task is on. It is
// pure: Build makes an immutable Zone from a model, With makes the next one from
// what changed, and the zone answers.
//
// The package never opens a socket.
package zone

import "net/netip"

// Model is everything that has a name on this node's networks.
type Model struct {
	Networks []Network
}

// Network is one network's names.
type Network struct {
	ID, Name string
	Services []Service `json:",omitempty"`
}

// Service is a service's names on one network.
type Service struct {
	Name string
	// Aliases are the attachment's aliases, as good as the name.
	Aliases []string `json:",omitempty"`
	// VirtualIPs is empty in dnsrr mode: the name then gives the tasks' addresses.
	VirtualIPs []netip.Addr `json:",omitempty"`
	Tasks      []Task       `json:",omitempty"`
	// Ports are for SRV names _port._proto.service.
	Ports []Port `json:",omitempty"`
}

// Port is a named or numbered port of a service.
type Port struct {
	Name     string `json:",omitempty"`
	Protocol string
	Port     uint16
}

// Task is one task's names on one network.
type Task struct {
	// Name is web.3; FullName web.3.<taskid>, which is also the container's name.
	Name, FullName string
	ContainerID    string `json:",omitempty"` // the first 12 hex digits are a name too
	// Hostname is the name that the container has for itself; tasks may share it.
	Hostname string `json:",omitempty"`
	Addrs    []netip.Addr
	// Draining tasks, and those that start, have their own names and reverse name
	// but are not in the service's or tasks. answers, and give a host name only
	// where no other task has it.
	Draining bool `json:",omitempty"`
}
