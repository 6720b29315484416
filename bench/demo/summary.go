package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
)

// claim is one thing that the show says about the product.
type claim struct {
	text   string
	held   bool
	figure string
}

// claims is what was judged, in order.
type claims []claim

// allHeld reports whether everything held. A show that judged nothing held
// nothing.
func (c claims) allHeld() bool {
	for _, one := range c {
		if !one.held {
			return false
		}
	}
	return len(c) > 0
}

// table is one line for each claim, and the count. Of a long figure it has the
// first line.
func (c claims) table() string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 8, 2, ' ', 0)
	held := 0
	for _, one := range c {
		if one.held {
			held++
		}
		figure, _, more := strings.Cut(one.figure, "\n")
		if more {
			figure += " …"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", verdict(one.held), one.text, figure)
	}
	// A strings.Builder takes everything.
	_ = w.Flush()
	fmt.Fprintf(&text, "%d of %d held\n", held, len(c))
	return text.String()
}

func verdict(held bool) string {
	if held {
		return "held"
	}
	return "DID NOT HOLD"
}
