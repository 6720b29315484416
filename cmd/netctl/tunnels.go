package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"

	"shoal/node/netview"
)

// tunnels shows how the node encrypts networks, and has new keys made.
func tunnels(docker command.Cli) *cobra.Command {
	cmd := show(docker, "tunnels", "How this node encrypts networks: keys, peers, and which were heard", printTunnels)
	cmd.AddCommand(&cobra.Command{
		Use: "rotate", Short: "Have every node make new keys for encrypted networks now", Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var begun struct{ Epoch uint64 }
			if err := call(cmd.Context(), docker, http.MethodPost, "rotate", url.Values{}, &begun); err != nil {
				return err
			}
			fmt.Fprintf(docker.Out(), "epoch %d has begun; the keys before it count until every node sends under the new ones\n", begun.Epoch)
			return nil
		},
	})
	return cmd
}

func printTunnels(w io.Writer, t netview.Tunnels) {
	switch {
	case t.Missing != "":
		fmt.Fprintf(w, "this node cannot encrypt networks: %s\n", t.Missing)
	case t.Floor == t.Epoch:
		fmt.Fprintf(w, "keys of epoch %d\n", t.Epoch)
	default:
		fmt.Fprintf(w, "keys of epochs %d and %d, this node sends under %d\n", t.Floor, t.Epoch, t.Settled)
	}
	if len(t.Waiting) > 0 {
		fmt.Fprintf(w, "still to send under epoch %d: %s\n", t.Epoch, strings.Join(t.Waiting, ", "))
	}
	row(w, "DEVICE", "PORT", "MTU", "NODE", "ADDRESS", "ENDPOINT", "PARTNER", "HEARD", "SENDS", "PUBLIC KEY")
	for _, d := range t.Devices {
		row(w, d.Name, d.Port, d.MTU, "(this one)", "", "", "", "", "", d.Public)
		for _, p := range d.Peers {
			row(w, d.Name, "", "", p.Node, p.Addr, p.Endpoint, p.Partner, p.Live, p.Sends, p.Public)
		}
	}
}
