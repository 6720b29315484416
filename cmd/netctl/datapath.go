package main

import (
	"cmp"
	"fmt"
	"io"
	"net/url"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"

	"shoal/node/netview"
)

func dataPath(docker command.Cli) *cobra.Command {
	var o options
	var test bool
	cmd := &cobra.Command{
		Use:   "datapath [OPTIONS]",
		Short: "What the self-test of the ways to the other nodes found",
		Long: `What the self-test of the ways to the other nodes found: whether tunnelled packets
arrive, with their checksums, and how large they may be. The node makes it when it
starts, for every new node, and then every ten minutes or so.`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			query := url.Values{}
			if test {
				query.Set("test", "1")
			}
			_, err := fetch(cmd, docker, "datapath", query, o, printDataPath)
			return err
		},
	}
	o.flags(cmd)
	cmd.Flags().BoolVar(&test, "test", false, "make the test now")
	return cmd
}

func printDataPath(w io.Writer, d netview.DataPath) {
	row(w, "NODE", "VTEP", "TESTED", "MTU", "TROUBLE")
	for _, way := range d.Ways {
		at, mtu := "not yet", "-"
		if !way.Tested.IsZero() {
			at, mtu = way.Tested.Format("15:04:05"), fmt.Sprint(way.MTU)
		}
		row(w, way.Node, way.VTEP, at, mtu, cmp.Or(way.Trouble, "-"))
	}
	if d.SoftwareChecksums {
		fmt.Fprintln(w, "the kernel fills in the checksums of tunnelled packets, because the network card spoils them")
	}
	fmt.Fprintf(w, "packets on overlay networks may have %d bytes\n", d.MTU)
}
