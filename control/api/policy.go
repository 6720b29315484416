package api

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Labels of a service by which its network is told what Docker has no flag for.
// LabelWeight is also a label of nodes.
const (
	// LabelAlgorithm chooses how new flows are spread over the tasks.
	LabelAlgorithm = "shoal.lb.algorithm"
	// LabelWeight is on a node the weight of its tasks, 1 to 65535, and on a
	// service a list of NODE=WEIGHT that comes before that, by host name or id.
	LabelWeight = "shoal.lb.weight"
	// LabelSticky is for how long after its last new flow a client address keeps
	// its task, 1s to 168h.
	LabelSticky = "shoal.lb.sticky"
	// LabelPrefer is "local" for tasks of the client's node before all others.
	LabelPrefer = "shoal.lb.prefer"
	// LabelSource is "nat" to hide clients of published ports behind the entry
	// node, "client" to show them, as without the label.
	LabelSource = "shoal.mesh.source"
	// LabelPublish lists the addresses and interfaces that published ports answer
	// at. With ".PORT" or ".PORT/PROTOCOL" at its end it speaks of that published
	// port alone.
	LabelPublish = "shoal.publish.addr"
	// LabelReady says when a task without a health check takes part: when it
	// accepts connections, or with "started" as soon as its process runs.
	// LabelReadyTimeout bounds the wait, 1ms to 1h.
	LabelReady        = "shoal.ready"
	LabelReadyTimeout = "shoal.ready.timeout"
)

// policyPrefix begins labels that must be one of the above: a label that is
// misspelt would be without effect, and nobody told.
const policyPrefix = "shoal."

// Algorithms are the values of LabelAlgorithm, the default first.
var Algorithms = []string{"rr", "wrr", "lc", "wlc", "sh", "mh"}

// Bounds of what labels may say.
const (
	maxWeight       = 65535
	minSticky       = time.Second
	maxSticky       = 7 * 24 * time.Hour
	minReadyTimeout = time.Millisecond
	maxReadyTimeout = time.Hour
	// DefaultReadyTimeout is how long a task that does not listen is waited for.
	DefaultReadyTimeout = 10 * time.Second
)

// maxLinkName is the longest name of an interface (IFNAMSIZ less its zero).
const maxLinkName = 15

// Policy is what the labels of a service say about its network.
type Policy struct {
	// Algorithm is one of Algorithms.
	Algorithm string
	// Weights are of the tasks on nodes, by the node's host name or id.
	Weights map[string]uint32
	// Sticky is 0 where clients have no task of their own; else whole seconds.
	Sticky time.Duration
	// PreferLocal: tasks of the client's node get what is new, while there are any.
	PreferLocal bool
	// HideClients: tasks see the entry node instead of the client.
	HideClients bool
	// ReadyWhenStarted: nobody waits until a task accepts connections.
	ReadyWhenStarted bool
	ReadyTimeout     time.Duration
	publish          map[publishedPort][]Place
}

// Place is where a published port answers: an address, or the addresses of an
// interface.
type Place struct {
	Addr netip.Addr // invalid for an interface
	Link string
}

// publishedPort is a port that LabelPublish speaks of; the zero value is every
// port, an empty protocol every protocol.
type publishedPort struct {
	number   uint32
	protocol string
}

// PublishedAt returns where a published port answers; none means everywhere.
func (p Policy) PublishedAt(number uint32, protocol string) []Place {
	for _, key := range []publishedPort{{number, protocol}, {number, ""}, {}} {
		if places := p.publish[key]; len(places) > 0 {
			return places
		}
	}
	return nil
}

// PublishLabels returns the labels of single ports that has denies, for an error.
func (p Policy) PublishLabels(has func(number uint32, protocol string) bool) (strange []string) {
	for key := range p.publish {
		if key.number != 0 && !has(key.number, key.protocol) {
			label := LabelPublish + "." + strconv.Itoa(int(key.number))
			if key.protocol != "" {
				label += "/" + key.protocol
			}
			strange = append(strange, label)
		}
	}
	slices.Sort(strange)
	return strange
}

// ParsePolicy reads the labels of a service. What is wrong is an Invalid error
// that names the label; the policy is then usable all the same, with the default
// in that label's place.
func ParsePolicy(labels map[string]string) (Policy, error) {
	p := Policy{Algorithm: Algorithms[0], ReadyTimeout: DefaultReadyTimeout}
	var wrong error
	for _, label := range slices.Sorted(maps.Keys(labels)) {
		if !SpeaksOfPolicy(label) {
			continue
		}
		if err := p.read(label, strings.TrimSpace(labels[label])); err != nil && wrong == nil {
			wrong = Errorf(Invalid, "label %s: %w", label, err)
		}
	}
	return p, wrong
}

// SpeaksOfPolicy says whether ParsePolicy looks at a label.
func SpeaksOfPolicy(label string) bool {
	return strings.HasPrefix(label, policyPrefix)
}

func (p *Policy) read(label, value string) (err error) {
	switch label {
	case LabelAlgorithm:
		if !slices.Contains(Algorithms, value) {
			return Errorf(Invalid, "unknown algorithm %q: choose one of %s", value, strings.Join(Algorithms, ", "))
		}
		p.Algorithm = value
	case LabelWeight:
		p.Weights, err = parseWeights(value)
	case LabelSticky:
		p.Sticky, err = parseDuration(value, minSticky, maxSticky)
		p.Sticky = (p.Sticky + time.Second - 1).Truncate(time.Second)
	case LabelPrefer:
		if value != "local" {
			return Errorf(Invalid, "unknown preference %q: choose local, or leave the label out", value)
		}
		p.PreferLocal = true
	case LabelSource:
		if value != "nat" && value != "client" {
			return Errorf(Invalid, "unknown source %q: choose client or nat", value)
		}
		p.HideClients = value == "nat"
	case LabelReady:
		if value != "started" && value != "accepts" {
			return Errorf(Invalid, "unknown moment %q: choose accepts or started", value)
		}
		p.ReadyWhenStarted = value == "started"
	case LabelReadyTimeout:
		var timeout time.Duration
		if timeout, err = parseDuration(value, minReadyTimeout, maxReadyTimeout); err == nil {
			p.ReadyTimeout = timeout
		}
	default:
		return p.readPublish(label, value)
	}
	return err
}

func parseDuration(text string, least, most time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < least || d > most {
		return 0, Errorf(Invalid, "%q is not a duration from %s to %s: write it as 30s, 10m or 1h30m", text, short(least), short(most))
	}
	return d, nil
}

// short is a duration without its zero ends: 168h, not 168h0m0s.
func short(d time.Duration) string {
	return strings.TrimSuffix(strings.TrimSuffix(d.String(), "0s"), "0m")
}

// ParseWeight reads the value that LabelWeight has on a node.
func ParseWeight(text string) (uint32, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32)
	if err != nil || n < 1 || n > maxWeight {
		return 0, Errorf(Invalid, "weight %q is not a number from 1 to %d", text, maxWeight)
	}
	return uint32(n), nil
}

func parseWeights(text string) (map[string]uint32, error) {
	out := map[string]uint32{}
	for part := range strings.SplitSeq(text, ",") {
		node, weight, found := strings.Cut(strings.TrimSpace(part), "=")
		if !found || node == "" {
			return nil, Errorf(Invalid, "%q is not NODE=WEIGHT, a host name or node id and a number: write it as h1=3,h2=1 (on a node the label is the number alone)", part)
		}
		n, err := ParseWeight(weight)
		if err != nil {
			return nil, err
		}
		if _, twice := out[node]; twice {
			return nil, Errorf(Invalid, "node %s has two weights", node)
		}
		out[node] = n
	}
	return out, nil
}

// CheckNodeLabels refuses labels of a node that say nothing that Shoal knows.
func CheckNodeLabels(labels map[string]string) error {
	for _, label := range slices.Sorted(maps.Keys(labels)) {
		if label == LabelWeight {
			if _, err := ParseWeight(labels[label]); err != nil {
				return Errorf(Invalid, "label %s: %w", label, err)
			}
		}
	}
	return nil
}

// readPublish reads LabelPublish, with or without a port at its end.
func (p *Policy) readPublish(label, value string) error {
	rest, known := strings.CutPrefix(label, LabelPublish)
	if !known || rest != "" && rest[0] != '.' {
		return Errorf(Invalid, "no such label: there are %s", strings.Join([]string{LabelAlgorithm, LabelWeight,
			LabelSticky, LabelPrefer, LabelSource, LabelPublish + "[.PORT[/PROTOCOL]]", LabelReady, LabelReadyTimeout}, ", "))
	}
	key, err := parsePublished(strings.TrimPrefix(rest, "."))
	if err != nil {
		return err
	}
	var places []Place
	for part := range strings.SplitSeq(value, ",") {
		place, err := parsePlace(strings.TrimSpace(part))
		if err != nil {
			return err
		}
		if slices.Contains(places, place) {
			return Errorf(Invalid, "%s is listed twice", part)
		}
		places = append(places, place)
	}
	if p.publish == nil {
		p.publish = map[publishedPort][]Place{}
	}
	p.publish[key] = places
	return nil
}

func parsePublished(text string) (publishedPort, error) {
	if text == "" {
		return publishedPort{}, nil
	}
	number, protocol, _ := strings.Cut(text, "/")
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 || protocol != "" && !slices.Contains([]string{"tcp", "udp", "sctp"}, protocol) {
		return publishedPort{}, Errorf(Invalid, "%q is not a published port: write it as %s.8080 or %s.8080/tcp", text, LabelPublish, LabelPublish)
	}
	return publishedPort{uint32(n), protocol}, nil
}

// parsePlace tells an address from the name of an interface.
func parsePlace(text string) (Place, error) {
	if text == "localhost" {
		text = "127.0.0.1"
	}
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	switch {
	case err == nil && addr.IsUnspecified():
		return Place{}, Errorf(Invalid, "%s is every address: leave the label out for that", text)
	case err == nil && (addr.IsMulticast() || addr.Zone() != "" || addr.Is4In6()):
		return Place{}, Errorf(Invalid, "%s is not an address that a node can have", text)
	case err == nil && addr.Is6() && addr.IsLoopback():
		return Place{}, Errorf(Invalid, "%s cannot be chosen by itself: use 127.0.0.1", text)
	case err == nil:
		return Place{Addr: addr}, nil
	case text == "" || len(text) > maxLinkName || strings.ContainsAny(text, ":/ \t[]") || strings.Trim(text, "0123456789.") == "":
		return Place{}, Errorf(Invalid, "%q is neither an address nor the name of an interface", text)
	}
	return Place{Link: text}, nil
}
