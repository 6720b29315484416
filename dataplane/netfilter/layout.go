package netfilter

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"
)

// Layout is the fixed part of a table of ours: its sets and maps (whose elements
// come and go) and the chains whose rules never change. It lives in the inet
// family, so that one table serves IPv4 and IPv6, unless a chain needs to sit
// right at a link.
type Layout struct {
	Table string
	// Device is the link that the chains of a table of the netdev family sit at;
	// "" makes a table of the inet family.
	Device string
	Sets   []nftables.Set
	Chains []Chain
	// People begins the names of sets and chains in the table that belong to
	// people: they are kept as they are, whatever happens to the rest. "" is nobody.
	People string
}

// peoples says whether the set or chain of that name belongs to people.
func (l Layout) peoples(name string) bool {
	return l.People != "" && strings.HasPrefix(name, l.People)
}

// Chain is a chain with its rules; one with a nil Hook is called by others.
type Chain struct {
	Name     string
	Type     nftables.ChainType
	Hook     *nftables.ChainHook
	Priority *nftables.ChainPriority
	Rules    []Rule
}

// Rule is one rule and the comment it is recognised by; comments are at most
// CommentMax bytes and unique within their chain.
type Rule struct {
	Comment string
	Exprs   []expr.Any
}

// CommentMax is the longest comment in bytes that a rule or element may carry.
const CommentMax = 200

// TableOf names the table of a layout.
func (l Layout) TableOf() *nftables.Table {
	if l.Device != "" {
		return &nftables.Table{Name: l.Table, Family: nftables.TableFamilyNetdev}
	}
	return &nftables.Table{Name: l.Table, Family: nftables.TableFamilyINet}
}

// Set returns the layout's set of that name, bound to its table.
func (l Layout) Set(name string) *nftables.Set {
	for _, s := range l.Sets {
		if s.Name == name {
			s.Table = l.TableOf()
			return &s
		}
	}
	return nil
}

// Exists says whether the namespace has the table of the inet family.
func (c *Conn) Exists(table string) (bool, error) { return c.exists(table, nftables.TableFamilyINet) }

// ExistsAtLinks says whether the namespace has the table of the netdev family.
func (c *Conn) ExistsAtLinks(table string) (bool, error) {
	return c.exists(table, nftables.TableFamilyNetdev)
}

func (c *Conn) exists(table string, family nftables.TableFamily) (bool, error) {
	_, err := c.ListTableOfFamily(table, family)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		// The library words "not there" in its own way when nothing comes back.
		tables, listErr := c.ListTablesOfFamily(family)
		if listErr != nil {
			return false, fmt.Errorf("list nftables tables: %w", listErr)
		}
		return slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == table }), nil
	}
	return true, nil
}

// Intact says whether the existing table still has every set, chain and rule of
// the layout, in order. extra returns the names of the sets and chains that are
// there beyond it.
func (c *Conn) Intact(l Layout) (intact bool, extraSets, extraChains []string, err error) {
	sets, err := c.GetSets(l.TableOf())
	if err != nil {
		return false, nil, nil, fmt.Errorf("list sets of table %s: %w", l.Table, err)
	}
	chains, err := c.ListChainsOfTableFamily(l.TableOf().Family)
	if err != nil {
		return false, nil, nil, fmt.Errorf("list chains of table %s: %w", l.Table, err)
	}
	known := map[string]bool{}
	for _, s := range l.Sets {
		known[s.Name] = true
	}
	found := 0
	for _, s := range sets {
		switch {
		case known[s.Name]:
			found++
		case !s.Anonymous && !l.peoples(s.Name):
			extraSets = append(extraSets, s.Name)
		}
	}
	intact = found == len(l.Sets)
	present := map[string]*nftables.Chain{}
	for _, ch := range chains {
		if ch.Table.Name == l.Table {
			present[ch.Name] = ch
		}
	}
	for _, want := range l.Chains {
		have, ok := present[want.Name]
		delete(present, want.Name)
		if !ok || !sameHook(want, have) {
			intact = false
			continue
		}
		if l.peoples(want.Name) {
			continue
		}
		same, err := c.sameRules(l, want)
		if err != nil {
			return false, nil, nil, err
		}
		intact = intact && same
	}
	for name := range present {
		if !l.peoples(name) {
			extraChains = append(extraChains, name)
		}
	}
	slices.Sort(extraChains)
	return intact, extraSets, extraChains, nil
}

func sameHook(want Chain, have *nftables.Chain) bool {
	if want.Hook == nil || have.Hooknum == nil {
		return want.Hook == nil && have.Hooknum == nil
	}
	return *want.Hook == *have.Hooknum && *want.Priority == *have.Priority && want.Type == have.Type
}

func (c *Conn) sameRules(l Layout, want Chain) (bool, error) {
	rules, err := c.rules(l.TableOf(), want.Name)
	if err != nil {
		return false, err
	}
	return slices.EqualFunc(rules, want.Rules, func(have *nftables.Rule, w Rule) bool {
		return Comment(have) == w.Comment && len(have.Exprs) == readable(w.Exprs)
	}), nil
}

// readable counts the expressions that the nftables library can read back.
func readable(exprs []expr.Any) (n int) {
	for _, e := range exprs {
		switch e.(type) {
		case *expr.Rt, *expr.Byteorder:
		default:
			n++
		}
	}
	return n
}

// Rules returns the rules of one chain, in order.
func (c *Conn) Rules(table, chain string) ([]*nftables.Rule, error) {
	return c.rules(&nftables.Table{Name: table, Family: nftables.TableFamilyINet}, chain)
}

func (c *Conn) rules(t *nftables.Table, chain string) ([]*nftables.Rule, error) {
	rules, err := c.GetRules(t, &nftables.Chain{Name: chain, Table: t})
	if err != nil {
		return nil, fmt.Errorf("list rules of chain %s in table %s: %w", chain, t.Name, err)
	}
	return rules, nil
}

// Comment returns a rule's comment, "" if it has none that can be read: the
// first value of type comment in the list of type, length, value that user data
// is. (The library's own reader trusts the lengths.)
func Comment(r *nftables.Rule) string {
	for data := r.UserData; len(data) >= 2; {
		kind, length := userdata.Type(data[0]), int(data[1])
		if len(data) < 2+length {
			return ""
		}
		if kind == userdata.TypeComment {
			return strings.TrimSuffix(string(data[2:2+length]), "\x00")
		}
		data = data[2+length:]
	}
	return ""
}

// Replace queues the table anew with the layout's sets, chains and rules,
// taking away whatever a table of that name held, but for what is people's.
func (c *Conn) Replace(l Layout) error {
	if err := c.empty(l); err != nil {
		return err
	}
	t := c.AddTable(l.TableOf())
	for i := range l.Sets {
		if err := c.AddSet(l.Set(l.Sets[i].Name), nil); err != nil {
			return fmt.Errorf("queue set %s: %w", l.Sets[i].Name, err)
		}
	}
	for _, ch := range l.Chains {
		made := ch.in(t)
		made.Device = l.Device
		c.AddChain(made)
	}
	for _, ch := range l.Chains {
		for _, r := range ch.Rules {
			c.append(t, ch.Name, r)
		}
	}
	return nil
}

// empty queues the removal of a table, or of all in it that is not people's.
func (c *Conn) empty(l Layout) error {
	there, err := false, error(nil)
	if l.People != "" {
		there, err = c.exists(l.Table, l.TableOf().Family)
	}
	if err != nil {
		return err
	}
	if !there {
		c.drop(l.TableOf())
		return nil
	}
	chains, sets, err := c.others(l)
	if err != nil {
		return err
	}
	for _, ch := range chains {
		c.FlushChain(ch)
	}
	for _, ch := range chains {
		c.DelChain(ch)
	}
	for _, s := range sets {
		c.DelSet(s)
	}
	return nil
}

// others lists the chains and sets of the table that are not people's.
func (c *Conn) others(l Layout) (chains []*nftables.Chain, sets []*nftables.Set, err error) {
	all, err := c.ListChainsOfTableFamily(l.TableOf().Family)
	if err != nil {
		return nil, nil, fmt.Errorf("list chains of table %s: %w", l.Table, err)
	}
	for _, ch := range all {
		if ch.Table.Name == l.Table && !l.peoples(ch.Name) {
			chains = append(chains, ch)
		}
	}
	named, err := c.GetSets(l.TableOf())
	if err != nil {
		return nil, nil, fmt.Errorf("list sets of table %s: %w", l.Table, err)
	}
	for _, s := range named {
		if !s.Anonymous && !l.peoples(s.Name) {
			sets = append(sets, s)
		}
	}
	return chains, sets, nil
}

// Clear takes the layout's table away. Where people have rules in it these stay,
// and the table with them.
func (c *Conn) Clear(l Layout) error {
	theirs, err := c.peoplesRules(l)
	if err != nil {
		return err
	}
	if !theirs {
		c.drop(l.TableOf())
		return c.Flush()
	}
	if err := c.empty(l); err != nil {
		return err
	}
	return c.Flush()
}

// Cleared says whether there is nothing that Clear would take away.
func (c *Conn) Cleared(l Layout) (bool, error) {
	if there, err := c.exists(l.Table, l.TableOf().Family); err != nil || !there {
		return !there, err
	}
	theirs, err := c.peoplesRules(l)
	if err != nil || !theirs {
		return false, err
	}
	chains, sets, err := c.others(l)
	return len(chains)+len(sets) == 0, err
}

func (c *Conn) peoplesRules(l Layout) (bool, error) {
	if l.People == "" {
		return false, nil
	}
	if there, err := c.exists(l.Table, l.TableOf().Family); err != nil || !there {
		return false, err
	}
	chains, err := c.ListChainsOfTableFamily(l.TableOf().Family)
	if err != nil {
		return false, fmt.Errorf("list chains of table %s: %w", l.Table, err)
	}
	for _, ch := range chains {
		if ch.Table.Name != l.Table || !l.peoples(ch.Name) {
			continue
		}
		// What the library cannot read are rules too.
		if rules, err := c.rules(l.TableOf(), ch.Name); err != nil || len(rules) > 0 {
			return true, nil
		}
	}
	return false, nil
}

func (ch Chain) in(t *nftables.Table) *nftables.Chain {
	return &nftables.Chain{Name: ch.Name, Table: t, Type: ch.Type, Hooknum: ch.Hook, Priority: ch.Priority}
}

// Drop queues the removal of a table of the inet family, there or not.
func (c *Conn) Drop(table string) {
	c.drop(&nftables.Table{Name: table, Family: nftables.TableFamilyINet})
}

// DropAtLinks is Drop for a table of the netdev family.
func (c *Conn) DropAtLinks(table string) {
	c.drop(&nftables.Table{Name: table, Family: nftables.TableFamilyNetdev})
}

func (c *Conn) drop(t *nftables.Table) {
	c.AddTable(t)
	c.DelTable(t)
}

// Append queues one rule at the end of a chain.
func (c *Conn) Append(table, chain string, r Rule) {
	c.append(&nftables.Table{Name: table, Family: nftables.TableFamilyINet}, chain, r)
}

func (c *Conn) append(t *nftables.Table, chain string, r Rule) {
	c.AddRule(&nftables.Rule{
		Table: t, Chain: &nftables.Chain{Name: chain, Table: t}, Exprs: r.Exprs,
		UserData: userdata.AppendString(nil, userdata.TypeComment, Clip(r.Comment)),
	})
}

// Clip cuts a comment to CommentMax bytes.
func Clip(s string) string {
	if len(s) > CommentMax {
		return s[:CommentMax]
	}
	return s
}
