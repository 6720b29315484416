package main

import (
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"

	"shoal/dataplane/trace"
	"shoal/node/netview"
)

// traceCommand asks for a packet's way.
func traceCommand(docker command.Cli) *cobra.Command {
	var o options
	var protocol, entry string
	var live bool
	cmd := &cobra.Command{
		Use:   "trace [OPTIONS] FROM TO[:PORT]",
		Short: "Where a packet goes and why",
		Long: `Where a packet goes and why.

FROM is a task of any node (web.3, or the beginning of its id or its container's),
a node's name, "host" for this node itself, "outside", or an address outside. TO is
an address, or a name as FROM would ask for it. Without a port it is a ping.

Exit codes: 0 if the packet is delivered by every way it may take, or with --live
if the one that was sent was, as planned; 1 if not, or if FROM or TO is unknown; 2
if there is no answer; 125 for wrong options.`,
		Args: cli.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{"from": {args[0]}, "to": {args[1]}, "protocol": {protocol}, "entry": {entry}}
			if live {
				q.Set("live", "1")
			}
			r, err := fetch(cmd, docker, "trace", q, o, printTrace)
			return traceResult(r, err)
		},
	}
	o.flags(cmd)
	cmd.Flags().StringVar(&protocol, "protocol", "", `"tcp", "udp", "sctp" or "ping" (default "tcp" with a port, "ping" without)`)
	cmd.Flags().StringVar(&entry, "entry", "", "the node that a client outside reaches (default the one that has the address)")
	cmd.Flags().BoolVar(&live, "live", false, "send one real packet and compare; it reaches the service")
	return cmd
}

func printTrace(w io.Writer, r netview.Route) {
	fmt.Fprintf(w, "%s from %s to %s, seen from node %s\n", r.Protocol, r.From, r.To, r.Node)
	if r.Name != "" {
		fmt.Fprintln(w, r.Name)
	}
	printPaths(w, r)
	for _, note := range r.Notes {
		fmt.Fprintln(w, "note:", note)
	}
	if r.Live != nil {
		printLive(w, r)
	}
}

// printPaths prints the plan.
func printPaths(w io.Writer, r netview.Route) {
	for i, p := range r.Paths {
		if r.Live != nil && r.Live.Way != 0 && r.Live.Way != i+1 {
			continue // the packet took another one
		}
		if len(r.Paths) > 1 {
			fmt.Fprintf(w, "way %d of %d\n", i+1, len(r.Paths))
		}
		row(w, "", "WHERE", "TABLE", "ENTRY", "WHAT HAPPENS")
		for n, h := range p.Hops {
			row(w, fmt.Sprintf("  %d", n+1), h.Where, h.Table, h.Rule, h.Result)
		}
		fmt.Fprintln(w, "  "+verdict(r, p))
	}
}

// printLive prints the real packet.
func printLive(w io.Writer, r netview.Route) {
	l := r.Live
	row(w, "seen", "WHERE", "LINK", "PACKET", "BY THE NODE'S CLOCK")
	first := map[string]time.Time{}
	for n, at := range l.Seen {
		if first[at.Node].IsZero() {
			first[at.Node] = at.At
		}
		link := "in by " + at.Link
		if at.Out {
			link = "out by " + at.Link
		}
		packet := at.Src.String() + " > " + at.Dst.String()
		if r.Protocol == "ping" {
			packet = at.Src.Addr().String() + " > " + at.Dst.Addr().String()
		}
		if at.VNI != 0 {
			packet += fmt.Sprintf(" in VXLAN %d to %s", at.VNI, at.VTEP)
		}
		row(w, fmt.Sprintf("  %d", n+1), at.Where, link, packet, "+"+at.At.Sub(first[at.Node]).Round(time.Microsecond).String())
	}
	for _, note := range l.Notes {
		fmt.Fprintln(w, "note:", note)
	}
	fmt.Fprintf(w, "the sender learnt: %s\n", l.Outcome)
	switch {
	case l.Differs != "":
		fmt.Fprintln(w, "NOT AS PLANNED:", l.Differs)
	case len(r.Paths) > 1:
		fmt.Fprintf(w, "as planned, by way %d of %d\n", l.Way, len(r.Paths))
	default:
		fmt.Fprintln(w, "as planned")
	}
}

// verdict is the last line of a way.
func verdict(r netview.Route, p trace.Path) string {
	text := string(p.Verdict)
	if p.At != "" {
		text += " at " + p.At
	}
	if p.Dst.IsValid() && r.Protocol == "ping" {
		text += ", " + p.Dst.Addr().String()
	} else if p.Dst.IsValid() {
		text += ", " + p.Dst.String()
	}
	switch {
	case p.Verdict == trace.Delivered && p.Src.IsValid():
		text += ", which sees " + p.Src.String() + " as the client"
	case p.Verdict == trace.Delivered:
		text += ", which sees the client's own address"
	}
	if p.Reason != "" {
		text += ": " + p.Reason
	}
	return text
}
