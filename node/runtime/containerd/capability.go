package containerd

import (
	"fmt"
	"slices"

	"github.com/containerd/containerd/pkg/cap"

	"shoal/node/runtime"
)

// capabilities are the defaults with add and drop applied by Docker's rule: ALL
// stands for every one that this process has, and what is named beats ALL.
func capabilities(defaults, add, drop []string) ([]string, error) {
	add, err := runtime.CapabilityNames(add)
	if err != nil {
		return nil, err
	}
	if drop, err = runtime.CapabilityNames(drop); err != nil {
		return nil, err
	}
	base := defaults
	switch {
	case slices.Contains(add, runtime.AllCapabilities):
		if base, err = cap.Current(); err != nil {
			return nil, fmt.Errorf("read this process's capabilities: %w", err)
		}
	case slices.Contains(drop, runtime.AllCapabilities):
		base = nil
	}
	kept := slices.DeleteFunc(slices.Clone(base), func(name string) bool { return slices.Contains(drop, name) })
	for _, name := range add {
		if name != runtime.AllCapabilities && !slices.Contains(kept, name) {
			kept = append(kept, name)
		}
	}
	return kept, nil
}
