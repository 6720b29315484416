// Package constraint reads placement constraints such as
// "node.labels.disk == ssd" and says whether a node meets them. The scheduler,
// the global orchestrator and the updater ask the same question, so it has one
// answer here. It looks at nothing but the node it is given.
package constraint

import (
	"net/netip"
	"regexp"
	"strings"

	"shoal/control/api"
)

// Constraint is one parsed expression: KEY == VALUE or KEY != VALUE.
type Constraint struct {
	// Key is what is compared, as the operator wrote it.
	Key string
	// Not is true for "!=".
	Not bool
	// Value is compared without regard to case.
	Value string
}

// Docker's own limits on what a key and a value may be made of.
var (
	keyPattern   = regexp.MustCompile(`^(?i)[a-z_][a-z0-9\-_.]+$`)
	valuePattern = regexp.MustCompile(`^(?i)[a-z0-9:\-_\s\.\*\(\)\?\+\[\]\\\^\$\|\/]+$`)
)

// Parse reads expressions; its errors have the kind Invalid and Docker's words.
func Parse(expressions []string) ([]Constraint, error) {
	parsed := make([]Constraint, 0, len(expressions))
	for _, e := range expressions {
		c, err := parse(e)
		if err != nil {
			return nil, err
		}
		parsed = append(parsed, c)
	}
	return parsed, nil
}

func parse(expression string) (Constraint, error) {
	key, value, found := strings.Cut(expression, "==")
	not := false
	if !found {
		key, value, found = strings.Cut(expression, "!=")
		not = true
	}
	if !found {
		return Constraint{}, api.Errorf(api.Invalid, "constraint expected one operator from ==, !=")
	}
	key, value = strings.TrimSpace(key), strings.TrimSpace(value)
	if !keyPattern.MatchString(key) {
		return Constraint{}, api.Errorf(api.Invalid, "key '%s' is invalid", key)
	}
	if !valuePattern.MatchString(value) {
		return Constraint{}, api.Errorf(api.Invalid, "value '%s' is invalid", value)
	}
	return Constraint{Key: key, Not: not, Value: value}, nil
}

// Met says whether the node meets every expression. An expression that does not
// parse is met by no node: the API refuses it before it gets here.
func Met(expressions []string, n *api.Node) bool {
	if len(expressions) == 0 {
		return true
	}
	parsed, err := Parse(expressions)
	return err == nil && Match(parsed, n)
}

// Match says whether the node meets every constraint. A key nobody knows is
// met by no node, whichever operator it stands with.
func Match(constraints []Constraint, n *api.Node) bool {
	for _, c := range constraints {
		if !c.match(n) {
			return false
		}
	}
	return true
}

const (
	nodeLabels   = "node.labels."
	engineLabels = "engine.labels."
)

func (c Constraint) match(n *api.Node) bool {
	switch key := strings.ToLower(c.Key); {
	case key == "node.id":
		return c.compare(n.ID)
	case key == "node.hostname":
		return c.compare(n.Description.Hostname)
	case key == "node.role":
		return c.compare(string(n.Spec.Role))
	case key == "node.ip":
		return c.compareAddr(n.Status.Addr)
	case key == "node.platform.os":
		return c.compare(n.Description.Platform.OS)
	case key == "node.platform.arch":
		c.Value = Arch(c.Value)
		return c.compare(Arch(n.Description.Platform.Architecture))
	case strings.HasPrefix(key, nodeLabels):
		return c.compare(n.Spec.Labels[c.Key[len(nodeLabels):]])
	case strings.HasPrefix(key, engineLabels):
		return c.compare(n.Description.Engine.Labels[c.Key[len(engineLabels):]])
	}
	return false
}

func (c Constraint) compare(have string) bool {
	return strings.EqualFold(have, c.Value) != c.Not
}

// compareAddr takes the value as an address or as a prefix in CIDR notation.
func (c Constraint) compareAddr(have string) bool {
	addr, err := netip.ParseAddr(have)
	if err != nil {
		return false
	}
	if prefix, err := netip.ParsePrefix(c.Value); err == nil {
		return prefix.Contains(addr.Unmap()) != c.Not
	}
	want, err := netip.ParseAddr(c.Value)
	return err == nil && (want == addr) != c.Not
}

// Arch gives the two names of one processor architecture one form: images say
// amd64 and arm64 where the kernel says x86_64 and aarch64.
func Arch(name string) string {
	switch name = strings.ToLower(name); name {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	}
	return name
}
