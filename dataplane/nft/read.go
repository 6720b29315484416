package nft

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"

	"shoal/dataplane/lb"
	"shoal/dataplane/netfilter"
)

// state is what the kernel has of ours for balancing.
type state struct {
	exists bool
	// sound is false when any part is not as we write it; then balance is empty
	// and the table must be replaced.
	sound   bool
	balance lb.Desired
}

// read returns the state of the namespace's table.
func read(ctx context.Context, c *netfilter.Conn, namespace string) (state, error) {
	none := state{balance: lb.Desired{Namespace: namespace}}
	exists, err := c.Exists(Table)
	if err != nil || !exists {
		return none, err
	}
	none.exists = true
	masquerade, err := hasChain(c, "postrouting")
	if err != nil {
		return none, err
	}
	var from []netip.Prefix
	if masquerade {
		hiding, err := c.Rules(Table, "postrouting")
		if err != nil {
			return none, err
		}
		from = netfilter.Hidden(hiding)
	}
	intact, sets, chains, err := c.Intact(layout(masquerade, from))
	if err != nil || !intact {
		return none, err
	}
	slices.Sort(sets)
	st := state{exists: true, sound: true, balance: lb.Desired{Namespace: namespace, MasqueradeFrom: from}}
	fronts, err := readFronts(c)
	if err != nil {
		return none, err
	}
	var names, objects []string
	for _, front := range fronts {
		if err := ctx.Err(); err != nil {
			return none, err
		}
		s, sound, err := readService(c, namespace, front)
		if err != nil || !sound {
			return none, err
		}
		st.balance.Services = append(st.balance.Services, s)
		names = append(names, objectName(front))
		objects = append(objects, objectNames(s)...)
	}
	slices.Sort(names)
	slices.Sort(objects)
	if !slices.Equal(names, chains) || !slices.Equal(objects, sets) {
		return none, nil
	}
	st.balance, err = st.balance.Canonical()
	if err != nil {
		return none, nil // nothing that we would write
	}
	if st.balance.Masquerades() != masquerade {
		return none, nil
	}
	return st, nil
}

func hasChain(c *netfilter.Conn, name string) (bool, error) {
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return false, fmt.Errorf("list chains: %w", err)
	}
	return slices.ContainsFunc(chains, func(ch *nftables.Chain) bool {
		return ch.Table.Name == Table && ch.Name == name
	}), nil
}

// readFronts returns the fronts that lead to their chain. One that leads
// elsewhere is left out, so its chain is found to be without front.
func readFronts(c *netfilter.Conn) ([]lb.Front, error) {
	var out []lb.Front
	for _, f := range []netfilter.Family{netfilter.IPv4, netfilter.IPv6} {
		for _, name := range []string{portFronts + f.Suffix, anyFronts + f.Suffix} {
			elements, err := c.GetSetElements(base.Set(name))
			if err != nil {
				return nil, fmt.Errorf("list elements of %s: %w", name, err)
			}
			for _, e := range elements {
				front, ok := parseFront(f, e.Key)
				if ok && bytes.Contains(e.Val, append([]byte(objectName(front)), 0)) {
					out = append(out, front)
				}
			}
		}
	}
	return out, nil
}

// readService reads a front's chain and map. It is sound when writing what was
// read would write the same again.
func readService(c *netfilter.Conn, namespace string, front lb.Front) (s lb.Service, sound bool, err error) {
	have, err := c.Rules(Table, objectName(front))
	if err != nil {
		return s, false, err
	}
	elements, err := c.GetSetElements(serverMap(front))
	if err != nil {
		return s, false, fmt.Errorf("list elements of %s: %w", objectName(front), err)
	}
	if len(have) == 0 {
		return s, false, nil
	}
	s, ok := assemble(front, netfilter.Comment(have[0]), elements)
	if !ok {
		return s, false, nil
	}
	want, slots := servers(namespace, s)
	if !sameElements(want, elements) || !sameRules(rules(s, slots), have) {
		return s, false, nil
	}
	sound, err = stickyAsWished(c, s)
	return s, sound, err
}

// assemble makes a service of a chain's comment and a map's elements.
func assemble(front lb.Front, comment string, elements []nftables.SetElement) (lb.Service, bool) {
	s, ok := parseDescription(front, comment)
	if !ok {
		return s, false
	}
	f := netfilter.FamilyOf(front.Addr)
	seen := map[string]bool{}
	for _, e := range elements {
		if len(e.Key) != 4 || seen[string(e.Val)] {
			continue
		}
		seen[string(e.Val)] = true
		addr, port, ok := f.ParseAddrPort(e.Val)
		b := lb.Backend{Addr: addr, Port: port, Draining: binaryutil.NativeEndian.Uint32(e.Key) >= drainingFrom}
		weight, task, _ := strings.Cut(e.Comment, " ")
		if _, err := fmt.Sscanf(weight, "weight=%d", &b.Weight); err != nil || !ok {
			return s, false
		}
		b.Task = task
		s.Backends = append(s.Backends, b)
	}
	d, err := lb.Desired{Services: []lb.Service{s}}.Canonical()
	if err != nil {
		return s, false
	}
	return d.Services[0], true
}

func sameElements(a, b []nftables.SetElement) bool {
	if len(a) != len(b) {
		return false
	}
	values := map[string]string{}
	for _, e := range a {
		values[string(e.Key)] = string(e.Val)
	}
	return !slices.ContainsFunc(b, func(e nftables.SetElement) bool { return values[string(e.Key)] != string(e.Val) })
}

// sameRules compares what decides: the number of rules and of expressions, and
// how many slots are picked from.
func sameRules(want []netfilter.Rule, have []*nftables.Rule) bool {
	return slices.EqualFunc(want, have, func(w netfilter.Rule, h *nftables.Rule) bool {
		return len(w.Exprs) == len(h.Exprs) && modulus(w.Exprs) == modulus(h.Exprs)
	})
}

func modulus(exprs []expr.Any) uint32 {
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Numgen:
			return e.Modulus
		case *expr.Hash:
			return e.Modulus
		}
	}
	return 0
}
