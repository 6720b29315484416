package sim

import (
	"context"
	"fmt"
	"strings"
	"time"

	"shoal/control/store"
)

// complaints are what a checker found; none is good.
type complaints []string

func (c *complaints) add(format string, args ...any) {
	if len(*c) < complaintsMax {
		*c = append(*c, fmt.Sprintf(format, args...))
	}
}

// complaintsMax bounds what one look reports.
const complaintsMax = 40

// lookAgain is the pause between two looks at a cluster that is not at rest.
const lookAgain = 100 * time.Millisecond

// Await looks until every checker is content, or ctx ends; then it returns what
// they still complain about.
func Await(ctx context.Context, checkers ...func() complaints) error {
	for {
		var found complaints
		for _, check := range checkers {
			if found = check(); len(found) > 0 {
				break
			}
		}
		if len(found) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not at rest: %w:\n\t%s", context.Cause(ctx), strings.Join(found, "\n\t"))
		case <-time.After(lookAgain):
		}
	}
}

// managerView is the state as a host's manager knows it; an empty one while the
// host has none.
func managerView(h *Host) *store.View {
	if m := managerOf(h); m != nil {
		return m.View()
	}
	return store.New().View()
}
