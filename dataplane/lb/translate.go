package lb

import (
	"context"
	"net/netip"
)

// Translation is the address translation one namespace needs besides balancing.
type Translation struct {
	Namespace string
	// Forwards send a port of any of the namespace's own addresses (fib type
	// local, loopback included) to one address: published ports into the
	// ingress namespace, host-mode ports to their task.
	Forwards []Forward
	// Masquerade hides these sources behind the namespace's own address when
	// their packets leave the given link (egress of tasks).
	Masquerade []Egress
	// Redirects rewrite what a process of the namespace sends to one address
	// and port (the name server at 127.0.0.11:53).
	Redirects []Redirect
}

// Forward is one port sent elsewhere.
type Forward struct {
	Protocol Protocol
	Port     uint16
	To       netip.AddrPort
	Name     string // for people
}

// Egress is a source prefix whose packets are masqueraded unless they stay on
// the bridge they came from.
type Egress struct {
	Source netip.Prefix
	Bridge string
}

// Redirect is one local destination replaced by another.
type Redirect struct {
	Protocol Protocol
	From, To netip.AddrPort
}

// Translator programs Translations; dataplane/nft has the one implementation.
type Translator interface {
	ReadTranslation(ctx context.Context, namespace string) (Translation, error)
	// Translate takes the whole wish for a namespace; all or nothing.
	Translate(ctx context.Context, t Translation) (changed int, err error)
}
