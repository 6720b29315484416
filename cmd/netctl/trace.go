package main

import (
	"fmt"
	"io"
	"net/url"

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
	cmd := &cobra.Command{
		Use:   "trace [OPTIONS] FROM TO[:PORT]",
		Short: "Where a packet goes and why",
		Long: `Where a packet goes and why.

FROM is a task of any node (web.3, or the beginning of its id or its container's),
a node's name, "host" for this node itself, "outside", or an address outside. TO is
an address, or a name as FROM would ask for it. Without a port it is a ping.`,
		Args: cli.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{"from": {args[0]}, "to": {args[1]}, "protocol": {protocol}, "entry": {entry}}
			return fetch(cmd, docker, "trace", q, o, printTrace)
		},
	}
	o.flags(cmd)
	cmd.Flags().StringVar(&protocol, "protocol", "", `"tcp", "udp", "sctp" or "ping" (default "tcp" with a port, "ping" without)`)
	cmd.Flags().StringVar(&entry, "entry", "", "the node that a client outside reaches (default the one that has the address)")
	return cmd
}

func printTrace(w io.Writer, r netview.Route) {
	fmt.Fprintf(w, "%s from %s to %s, seen from node %s\n", r.Protocol, r.From, r.To, r.Node)
	if r.Name != "" {
		fmt.Fprintln(w, r.Name)
	}
	for i, p := range r.Paths {
		if len(r.Paths) > 1 {
			fmt.Fprintf(w, "way %d of %d\n", i+1, len(r.Paths))
		}
		row(w, "", "WHERE", "TABLE", "ENTRY", "WHAT HAPPENS")
		for n, h := range p.Hops {
			row(w, fmt.Sprintf("  %d", n+1), h.Where, h.Table, h.Rule, h.Result)
		}
		fmt.Fprintln(w, "  "+verdict(r, p))
	}
	for _, note := range r.Notes {
		fmt.Fprintln(w, "note:", note)
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
