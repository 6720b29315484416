// Command lanes runs the test lanes of the house one after another and says
// what each ran, what failed, and what a missing kernel feature made it skip.
// Exit status 0 means that every lane passed.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	only := flag.String("only", "", "comma separated lanes to run (all)")
	short := flag.Bool("short", false, "leave out the lane that boots a virtual machine")
	flag.Parse()
	if err := os.MkdirAll(workDir, 0o755); err != nil {
		fail(err)
	}
	var results []Result
	for _, lane := range lanes() {
		if !wanted(*only, lane.Name) || *short && lane.Slow {
			continue
		}
		fmt.Printf("\n=== %s: %s\n", lane.Name, lane.What)
		began := time.Now()
		r := lane.Run()
		r.Lane, r.Took = lane.Name, time.Since(began)
		results = append(results, r)
		fmt.Println(r.line())
	}
	os.Exit(summary(results))
}

func wanted(only, lane string) bool {
	if only == "" {
		return true
	}
	for _, name := range strings.Split(only, ",") {
		if name == lane {
			return true
		}
	}
	return false
}

// summary prints the list of lanes and returns the exit status.
func summary(results []Result) int {
	var total Result
	fmt.Println("\n=== lanes")
	for _, r := range results {
		fmt.Println(r.line())
		total.Passed += r.Passed
		total.Failed += r.Failed
		total.Skipped += r.Skipped
	}
	for _, r := range results {
		for reason, n := range r.Reasons {
			fmt.Printf("skipped in %s: %s (%d)\n", r.Lane, reason, n)
		}
	}
	for _, r := range results {
		for _, f := range r.Failures {
			fmt.Printf("FAILED in %s: %s\n", r.Lane, f)
		}
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", total.Passed, total.Failed, total.Skipped)
	if total.Failed > 0 || total.Passed == 0 {
		return 1
	}
	return 0
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "lanes:", err)
	os.Exit(1)
}

// workDir holds what lanes build; it is never committed.
var workDir = filepath.Join(".cache", "lanes")
