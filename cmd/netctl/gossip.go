package main

import (
	"fmt"
	"io"
	"strings"

	"shoal/node/netview"
)

func printGossip(w io.Writer, g netview.Gossip) {
	row(w, "NODE", "NAME", "ADDRESS", "STATE", "LAST COMPARED", "ERROR")
	for _, m := range g.Members {
		sync := g.Peers[m.NodeID]
		at := "-"
		if !sync.At.IsZero() {
			at = sync.At.Format("15:04:05.000")
		}
		row(w, m.NodeID, m.Name, m.Addr, m.State, at, sync.Error)
	}
	fmt.Fprintf(w, "table digest %016x, behind on %d owners, queues: events %d, publish %d\n",
		g.DigestSum, len(g.Behind), g.EventQueue, g.PublishQueue)
	fmt.Fprintln(w, "keys:", keysInWords(g.Keys))
}

// keysInWords says how far a change of the gossip keys is, and for whom it waits.
func keysInWords(k netview.GossipKeys) string {
	since := k.Since.Local().Format("2006-01-02 15:04:05")
	switch k.Phase {
	case "":
		return "the leader has not begun to count their changes"
	case "settled":
		return "settled since " + since
	}
	text := fmt.Sprintf("a change goes on (step %d, %s since %s): ", k.Step, k.Phase, since)
	switch {
	case len(k.Waiting) > 0:
		return text + "waits for " + strings.Join(k.Waiting, ", ")
	case k.Waiting != nil:
		return text + "waits for no node"
	case k.Made < k.Step:
		return text + "waits for this node, and managers know for whom else"
	}
	return text + "this node has made the step, managers know for whom it waits"
}
