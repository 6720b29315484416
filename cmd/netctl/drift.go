package main

import (
	"fmt"
	"io"
	"net/url"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"

	"shoal/node/netview"
)

// drift shows what differs now, or what was put right lately.
func drift(docker command.Cli) *cobra.Command {
	var o options
	var healed bool
	cmd := &cobra.Command{
		Use:   "drift [OPTIONS]",
		Short: "What differs between the kernel and what should be there",
		Long: `What differs between the kernel and what should be there.

The node puts a difference right within two seconds; --healed shows what it put
right lately, with the time.`,
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if healed {
				_, err := fetch(cmd, docker, "healed", url.Values{}, o, printHealed)
				return err
			}
			_, err := fetch(cmd, docker, "drift", url.Values{}, o, printDrift)
			return err
		},
	}
	o.flags(cmd)
	cmd.Flags().BoolVar(&healed, "healed", false, "what was put right lately instead of what differs now")
	return cmd
}

func printDrift(w io.Writer, d netview.Drift) {
	fmt.Fprintf(w, "%d steps, %d failed, the last took %s\n", d.Loop.Steps, d.Loop.Failures, d.Loop.Took)
	if d.Loop.Err != "" {
		fmt.Fprintln(w, "last error:", d.Loop.Err)
	}
	if len(d.Differences) == 0 {
		fmt.Fprintln(w, "the kernel has what it should have")
	}
	for _, line := range d.Differences {
		fmt.Fprintln(w, line)
	}
}

func printHealed(w io.Writer, h netview.Healed) {
	fmt.Fprintf(w, "put right since the daemon's start: overlay %d, vault %d, translation %d, balancer %d\n",
		h.Total["overlay"], h.Total["vault"], h.Total["translation"], h.Total["balancer"])
	if len(h.Last) == 0 {
		return
	}
	row(w, "TIME", "PART", "IN", "WHAT WAS DONE")
	for _, r := range h.Last {
		row(w, r.At.Format("2006-01-02 15:04:05.000"), r.Part, r.In, r.Change)
	}
}
