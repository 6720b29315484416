package containerd

import (
	"slices"
	"strings"

	"github.com/containerd/containerd/pkg/cap"

	"shoal/node/runtime"
)

// capabilities are the defaults with add and drop applied by Docker's rule: ALL
// stands for every one that the kernel knows, and what is named beats ALL.
func capabilities(defaults, add, drop []string) ([]string, error) {
	known := cap.Known()
	add, err := capabilityNames(add, known)
	if err != nil {
		return nil, err
	}
	if drop, err = capabilityNames(drop, known); err != nil {
		return nil, err
	}
	base := defaults
	switch {
	case slices.Contains(add, allCapabilities):
		if base, err = cap.Current(); err != nil {
			return nil, runtime.Invalid("read this process's capabilities: %v", err)
		}
	case slices.Contains(drop, allCapabilities):
		base = nil
	}
	kept := slices.DeleteFunc(slices.Clone(base), func(name string) bool { return slices.Contains(drop, name) })
	for _, name := range add {
		if name != allCapabilities && !slices.Contains(kept, name) {
			kept = append(kept, name)
		}
	}
	return kept, nil
}

const allCapabilities = "ALL"

// capabilityNames gives names the form CAP_NAME and refuses unknown ones.
func capabilityNames(names, known []string) ([]string, error) {
	full := make([]string, 0, len(names))
	for _, name := range names {
		upper := strings.ToUpper(name)
		if upper == allCapabilities {
			full = append(full, allCapabilities)
			continue
		}
		if !strings.HasPrefix(upper, "CAP_") {
			upper = "CAP_" + upper
		}
		if !slices.Contains(known, upper) {
			return nil, runtime.Invalid("invalid capability: %q", name)
		}
		full = append(full, upper)
	}
	return full, nil
}
