package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"shoal/dataplane/lb"
	"shoal/node/netview"
)

// networkCommands are Shoal's own: the network of the node as it is.
func networkCommands(docker command.Cli) []*cobra.Command {
	return []*cobra.Command{
		show(docker, "endpoints", "Endpoints that this node knows, by network", printEndpoints),
		show(docker, "lb", "What this node's kernel balances: virtual IPs and published ports", printBalancer),
		show(docker, "dns", "Names that tasks of this node can ask for", printNames),
		show(docker, "overlay", "Overlay networks of this node and their forwarding entries", printOverlay),
		tunnels(docker),
		show(docker, "gossip", "Members of the gossip and how well tables agree", printGossip),
		dataPath(docker),
		drift(docker),
		top(docker),
		traceCommand(docker),
	}
}

// show makes a command that fetches one view and prints it as a table or JSON.
func show[T any](docker command.Cli, name, short string, print func(io.Writer, T)) *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use: name + " [OPTIONS]", Short: short, Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fetch(cmd, docker, name, url.Values{}, o, print)
			return err
		},
	}
	o.flags(cmd)
	return cmd
}

// options are what all views take.
type options struct{ format, node string }

func (o *options) flags(cmd *cobra.Command) { o.addTo(cmd.Flags()) }

func (o *options) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&o.format, "format", "table", `"table" or "json"`)
	flags.StringVar(&o.node, "node", "", "the node to ask, by name or id (default the one whose socket it is)")
}

// fetch asks for a view and prints it.
func fetch[T any](cmd *cobra.Command, docker command.Cli, view string, query url.Values, o options, print func(io.Writer, T)) (out T, err error) {
	if o.node != "" {
		query.Set("node", o.node)
	}
	if err := get(cmd.Context(), docker, view, query, &out); err != nil {
		return out, err
	}
	return out, write(docker.Out(), o.format, out, print)
}

// write prints an answer as it was asked for.
func write[T any](to io.Writer, format string, out T, print func(io.Writer, T)) error {
	switch format {
	case "json":
		enc := json.NewEncoder(to)
		enc.SetIndent("", "  ")
		return enc.Encode(out)
	case "table":
		w := tabwriter.NewWriter(to, 0, 8, 3, ' ', 0)
		print(w, out)
		return w.Flush()
	}
	return fmt.Errorf("unknown format %q: choose table or json", format)
}

func row(w io.Writer, cells ...any) {
	text := make([]string, len(cells))
	for i, c := range cells {
		text[i] = fmt.Sprint(c)
	}
	fmt.Fprintln(w, strings.Join(text, "\t"))
}

func list[T any](items []T) string {
	text := make([]string, len(items))
	for i, item := range items {
		text[i] = fmt.Sprint(item)
	}
	return strings.Join(text, " ")
}

func printEndpoints(w io.Writer, endpoints []netview.Endpoint) {
	row(w, "NETWORK", "TASK", "STATE", "ADDRESS", "MAC", "NODE", "VTEP", "SEQ")
	for _, e := range endpoints {
		if e.Down {
			e.State += ", node silent"
		}
		row(w, e.Network, e.Task, e.State, list(e.Addrs), e.MAC, e.Node, e.VTEP, fmt.Sprintf("%d.%d", e.Epoch, e.Seq))
	}
}

func printBalancer(w io.Writer, b netview.Balancer) {
	fmt.Fprintf(w, "balancer: %s (%s)\n", b.Driver, b.Why)
	fmt.Fprintf(w, "clients of published ports: %s\n", b.Clients)
	row(w, "IN", "SERVICE", "FRONT", "ALGORITHM", "BACKEND", "WEIGHT", "TASK")
	for _, n := range b.Namespaces {
		if n.Driver != "" && n.Driver != b.Driver {
			n.Of += ", " + n.Driver
		}
		for _, s := range n.Services {
			front := s.Addr.String()
			if s.Port != 0 {
				front = s.Front.String()
			}
			if len(s.Backends) == 0 {
				row(w, n.Of, s.Name, front, policyOf(s), "none: refused", "", "")
			}
			for _, back := range s.Backends {
				weight := fmt.Sprint(max(back.Weight, 1))
				if back.Draining {
					weight = "draining"
				}
				addr := back.Addr.String()
				if back.Port != 0 {
					addr = netip.AddrPortFrom(back.Addr, back.Port).String()
				}
				row(w, n.Of, s.Name, front, policyOf(s), addr, weight, back.Task)
			}
		}
		for _, f := range n.Forwards {
			at := "*"
			if f.At.IsValid() {
				at = f.At.String()
			}
			row(w, n.Of, f.Name, net.JoinHostPort(at, strconv.Itoa(int(f.Port)))+"/"+string(f.Protocol), "forward", f.To, "", "")
		}
	}
}

// policyOf is how a service is balanced, in the words of its labels.
func policyOf(s lb.Service) string {
	text := string(s.Algorithm)
	if s.Sticky > 0 {
		text += ", sticky " + s.Sticky.String()
	}
	return text
}

func printNames(w io.Writer, names []netview.Name) {
	row(w, "NETWORK", "NAME", "ADDRESS")
	for _, n := range names {
		row(w, n.Network, n.Name, list(n.Addrs))
	}
}

func printOverlay(w io.Writer, networks []netview.Overlay) {
	row(w, "NETWORK", "VNI", "LOCAL", "MTU", "ENCRYPTED", "PEER", "ADDRESS", "MAC", "VTEP", "NODE")
	for _, n := range networks {
		if n.Blocked != "" {
			row(w, n.Name, "-", "-", "-", n.Encrypted, "not carried: "+n.Blocked)
			continue
		}
		if n.SelfTest() {
			n.Name += " (self-test)"
		}
		row(w, n.Name, n.VNI, n.Local, n.MTU, n.Encrypted, "", "", "", "", "")
		for _, p := range n.Peers {
			row(w, n.Name, n.VNI, "", "", "", p.Task, list(p.Addrs), p.MAC, p.VTEP, p.Node)
		}
	}
}
