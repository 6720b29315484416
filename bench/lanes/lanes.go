package main

import (
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
)

// Lane is one kind of test.
type Lane struct {
	Name, What string
	Slow       bool
	Run        func() Result
}

// vmPackages are those whose tests say something new under a kernel with IPVS,
// with the tests to run there and what else is asked for: one emulated machine each,
// the longest first.
var vmPackages = []struct{ path, tests, env string }{
	{"./bench/e2e", "^TestLab$/^(Mesh|VIPSourceAddress|UDP|Mesh6|Encrypted|Policy)$", "SHOAL_LAB_BALANCER=ipvs"},
	{"./bench/e2e", "^TestSource$/^(Kept|ReplyByEntry)$", "SHOAL_LAB_BALANCER=ipvs"},
	{"./bench/e2e", "^TestLab$/^(Mesh|VIPSourceAddress|CountsConnections)$", "SHOAL_LAB_BALANCER=auto"},
	{"./dataplane/nft", "^TestLab", ""},
	{"./overlay/rtnl", ".", ""},
	{"./dataplane/ipvs", "^TestLab", ""},
	{"./dataplane/sockdiag", "InTheKernel$", ""},
	{"./overlay/wglink", ".", ""},
}

func lanes() []Lane {
	return []Lane{
		{Name: "tidy", What: "the rules of the house", Run: tidy},
		{Name: "unit", What: "planners, properties, decoders", Run: unit},
		{Name: "lab", What: "hosts as network namespaces on this kernel", Run: lab},
		{Name: "vm", What: "the same under a kernel that has IPVS", Slow: true, Run: vm},
		{Name: "conformance", What: "the stock docker CLI against a lab of three hosts", Run: conformance},
		{Name: "sim", What: "many nodes in one process, with faults", Run: sim},
	}
}

func tidy() Result {
	return sum(command("go", "vet", "./..."), command("go", "vet", "-tags", "lab", "./..."),
		goTest(nil, "-count=1", "./bench/tidy"))
}

func unit() Result { return goTest(nil, packages()...) }

// packages lists what the unit lane tests: all but what has a lane of its own.
func packages() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(tests(""))), func(pkg string) bool {
		return pkg == "shoal/bench/tidy" || pkg == "shoal/bench/sim"
	})
}

// labPackages lists those with tests against a real kernel or a real containerd: the
// ones that have more tests with the tag, but for the one that has a lane of its own.
func labPackages() []string {
	all, plain := tests("lab"), tests("")
	maps.DeleteFunc(all, func(pkg, files string) bool { return files == plain[pkg] || pkg == "shoal/bench/conformance" })
	return slices.Sorted(maps.Keys(all))
}

// tests has the test files of every package, with a build tag.
func tests(tag string) map[string]string {
	out, err := exec.Command("go", "list", "-tags", tag, "-f", "{{.ImportPath}} {{.TestGoFiles}}{{.XTestGoFiles}}", "shoal/...").Output()
	if err != nil {
		fail(err)
	}
	files := map[string]string{}
	for line := range strings.Lines(string(out)) {
		pkg, list, _ := strings.Cut(strings.TrimSpace(line), " ")
		files[pkg] = list
	}
	return files
}

func lab() Result {
	require := "SHOAL_REQUIRE=root,netns,vxlan,nft,containerd,haproxy"
	return goTest([]string{require}, append([]string{"-tags", "lab", "-count=1", "-p=1", "-timeout", "20m"}, labPackages()...)...)
}

// vm runs the lab tests in machines that have IPVS, as many at a time as there are
// processors, since one keeps one busy; where this machine's own kernel has it, the
// lab lane has already shown the same.
func vm() Result {
	if _, err := os.Stat("/proc/net/ip_vs"); err == nil {
		return Result{Passed: 1}
	}
	programs, all := map[string]string{}, make([]Result, len(vmPackages))
	for _, pkg := range vmPackages {
		if programs[pkg.path] != "" {
			continue
		}
		program, built := compile(pkg.path)
		if built.Failed > 0 {
			return built
		}
		programs[pkg.path] = program
	}
	var running sync.WaitGroup
	free := make(chan struct{}, runtime.NumCPU())
	for i, pkg := range vmPackages {
		free <- struct{}{}
		running.Go(func() {
			defer func() { <-free }()
			all[i] = inVM(pkg.path, programs[pkg.path], pkg.tests, pkg.env)
		})
	}
	running.Wait()
	return sum(all...)
}

// inVM runs tests in a machine whose clock counts instructions: a busy host does not
// make it slower, and waiting takes no time of ours. So only the machine has a time limit,
// and the tests, which would count its own leaps, have none. What something costs is
// counted natively.
func inVM(pkg, program, tests, env string) Result {
	args := []string{"tool", "test2json", "-p", pkg, "bench/vm/run", "--count", "--env", "SHOAL_LAB_PATIENCE=5",
		"--env", "SHOAL_REQUIRE=root,netns,vxlan,nft,ipvs,sctp,wireguard"}
	if env != "" {
		args = append(args, "--env", env)
	}
	args = append(args, "--", program, "-test.v=test2json", "-test.run", tests, "-test.skip", "^TestCost", "-test.timeout", "0")
	return run(exec.Command("go", args...), nil)
}

func conformance() Result {
	require := "SHOAL_REQUIRE=root,netns,vxlan,nft,containerd,docker-cli,docker-registry"
	return goTest([]string{require}, "-tags", "lab", "-count=1", "-parallel", "8", "-timeout", "15m", "./bench/conformance")
}

func sim() Result { return goTest(nil, "-count=1", "-short", "./bench/sim") }
