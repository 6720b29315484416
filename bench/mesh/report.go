package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// report is everything that a run found out.
type report struct {
	Machine   machine
	Rounds    int
	Slice     string
	Conns     int
	Scenarios []scenarioReport
	Goals     []goalReport
	// Failed counts the connections that failed, Failure is the first.
	Failed  int
	Failure string `json:",omitempty"`
}

type scenarioReport struct {
	Name, What string
	Contenders []contenderReport
}

type contenderReport struct {
	Name, What string
	Values     map[string]figure
	Failed     int
}

// figure is the median of what was measured, and the median of its ratios to the
// first contender in the same round, with the interval that holds the true
// median with a certainty of 95 %, or, of fewer than six rounds, all of them.
type figure struct {
	Median           float64
	Ratio, Low, High float64
	Rounds           int
}

// goalReport is a ratio that was aimed at.
type goalReport struct {
	Name, What string
	Of, To     string
	Value      string
	Figure     figure
}

// machine is where a run was.
type machine struct {
	When, Kernel, CPU, Memory string
	CPUs                      int
	Balancer                  string
	Emulated                  bool
	HAProxy                   string
	LoadBefore, LoadAfter     string
}

// describe says what machine it is and which balancers it compares.
func describe(own string) machine {
	m := machine{When: time.Now().UTC().Format("2006-01-02 15:04 UTC"), CPUs: runtime.NumCPU(), Balancer: "nftables",
		Emulated: os.Getenv("SHOAL_VM") != "", LoadBefore: loadAverage()}
	if hasIPVS() {
		m.Balancer = "IPVS"
	}
	if own != "auto" {
		m.Balancer += "; Shoal's: " + own
	}
	if raw, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(raw))
	}
	m.CPU, m.Memory = field("/proc/cpuinfo", "model name"), field("/proc/meminfo", "MemTotal")
	if out, err := exec.Command("haproxy", "-v").Output(); err == nil {
		words := strings.Fields(string(out))
		m.HAProxy = words[min(2, len(words)-1)]
	}
	return m
}

// field is a line's value in a file of the kernel, "" when it has none.
func field(path, name string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for _, line := range strings.Split(string(raw), "\n") {
		if found, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(found) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// loadAverage is of the last minute: what else the machine did.
func loadAverage() string {
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(raw), " ")
	return first
}

// valueNames are the values in the order in which they are shown.
var valueNames = []string{valueRequests, valueConnects, valueThroughput, valueP50, valueP99, valueCPU}

func summarize(o options, m machine, scenarios []scenario, rounds []round) report {
	m.LoadAfter = loadAverage()
	r := report{Machine: m, Rounds: len(rounds), Slice: o.slice.String(), Conns: o.conns}
	for _, s := range scenarios {
		out := scenarioReport{Name: s.Name, What: s.What}
		for _, c := range s.contenders {
			one := contenderReport{Name: c.Name, What: c.What, Values: map[string]figure{}}
			for _, value := range valueNames {
				one.Values[value] = compare(rounds, key{s.Name, c.Name, value}, key{s.Name, s.contenders[0].Name, value})
			}
			for _, round := range rounds {
				one.Failed += round.failed[way{s.Name, c.Name}]
			}
			r.Failed += one.Failed
			out.Contenders = append(out.Contenders, one)
		}
		r.Scenarios = append(r.Scenarios, out)
	}
	for _, round := range rounds {
		if r.Failure == "" {
			r.Failure = round.words
		}
	}
	r.Goals = goals(rounds)
	return r
}

// aims are the ratios that Shoal wants to reach, each of one contender to another
// in the same scenario and round. One connection's requests are compared by the
// median time of one, which other load on the machine hardly moves.
var aims = []struct{ name, what, scenario, of, to, value string }{
	{"G1", "virtual IP against the task's address, same host: requests, at least 0.99", "vip-local", nameShoal, nameOverlay, valueRequests},
	{"G1", "the same, one connection", "vip-local", nameOverlay, nameShoal, valueP50},
	{"G1", "the same: throughput, at least 0.99", "vip-local", nameShoal, nameOverlay, valueThroughput},
	{"G1", "virtual IP against the task's address, other host: requests, at least 0.99", "vip-remote", nameShoal, nameOverlay, valueRequests},
	{"G1", "the same, one connection", "vip-remote", nameOverlay, nameShoal, valueP50},
	{"G1", "the same: throughput, at least 0.99", "vip-remote", nameShoal, nameOverlay, valueThroughput},
	{"G2", "many services loaded against direct, same host: new connections, at least 0.97", "services", nameMany, nameDirect, valueConnects},
	{"G2", "many services loaded against one: new connections", "services", nameMany, nameOne, valueConnects},
	{"G2", "many services loaded against a raw balancer with one: new connections", "services", nameMany, nameRaw, valueConnects},
	{"G3", "published port, other host: Swarm's CPU time of a request against Shoal's, at least 5", "port-remote", nameSwarm, nameShoal, valueCPU},
	{"G3", "the same, one connection: Swarm's time of a request against Shoal's", "port-remote", nameSwarm, nameShoal, valueP50},
	{"G6", "Shoal's overlay against the underlay: requests, at least 0.95", "vip-remote", nameOverlay, nameHosts, valueRequests},
	{"G6", "the same, one connection", "vip-remote", nameHosts, nameOverlay, valueP50},
	{"G6", "a plain overlay against the underlay, one connection", "vip-remote", nameHosts, nameDirect, valueP50},
	{"G6", "Shoal's overlay against a plain one, one connection", "vip-remote", nameDirect, nameOverlay, valueP50},
	{"G6", "Shoal's overlay against a plain one: throughput", "vip-remote", nameOverlay, nameDirect, valueThroughput},
}

func goals(rounds []round) (out []goalReport) {
	for _, a := range aims {
		f := compare(rounds, key{a.scenario, a.of, a.value}, key{a.scenario, a.to, a.value})
		if f.Rounds > 0 {
			out = append(out, goalReport{Name: a.name, What: a.what, Of: a.of, To: a.to, Value: a.value, Figure: f})
		}
	}
	return out
}

// compare pairs two values round by round.
func compare(rounds []round, of, to key) (f figure) {
	var values, ratios []float64
	for _, r := range rounds {
		value, ok := r.values[of]
		base, there := r.values[to]
		if ok && there && base > 0 {
			values, ratios = append(values, value), append(ratios, value/base)
		}
	}
	f.Rounds = len(ratios)
	f.Median = median(values)
	f.Ratio, f.Low, f.High = interval(ratios)
	return f
}

func median(values []float64) float64 {
	m, _, _ := interval(values)
	return m
}

// certainty is how often the interval holds the true median.
const certainty = 0.95

// interval returns the median and its interval by order statistics, which asks
// nothing of how the values scatter: the k-th smallest and the k-th largest, for
// the largest k that is certain enough.
func interval(values []float64) (middle, low, high float64) {
	n := len(values)
	if n == 0 {
		return 0, 0, 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle = (sorted[(n-1)/2] + sorted[n/2]) / 2
	k, below, term := 0, 0.0, math.Pow(0.5, float64(n))
	for i := 0; i < n/2; i++ {
		// below is the chance that at most i of n values lie under the median.
		below += term
		term = term * float64(n-i) / float64(i+1)
		if 2*below > 1-certainty {
			break
		}
		k = i
	}
	return middle, sorted[k], sorted[n-1-k]
}

// whole returns an error when a contender has never answered.
func (r report) whole() error {
	for _, s := range r.Scenarios {
		for _, c := range s.Contenders {
			for _, value := range valueNames {
				if c.Values[value].Rounds == 0 {
					return fmt.Errorf("%s, %s: no %s were measured: %s", s.Name, c.Name, value, r.Failure)
				}
			}
		}
	}
	return nil
}

// write writes the report as JSON, a table and a picture, and the table to the
// standard output.
func write(o options, r report) error {
	raw, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return fmt.Errorf("encode the results: %w", err)
	}
	text := table(r)
	for ending, content := range map[string]string{".json": string(raw) + "\n", ".md": text, ".svg": picture(r)} {
		if err := os.WriteFile(filepath.Join(o.out, o.title+ending), []byte(content), 0o644); err != nil {
			return fmt.Errorf("write the results: %w", err)
		}
	}
	fmt.Print(text)
	return r.whole()
}
