// Command netctl is Shoal's operator tool. Its cluster commands are docker/cli's
// own, so that every flag and progress bar is the one people know; its own
// commands show the network as it is.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/command/config"
	"github.com/docker/cli/cli/command/container"
	"github.com/docker/cli/cli/command/image"
	"github.com/docker/cli/cli/command/network"
	"github.com/docker/cli/cli/command/node"
	"github.com/docker/cli/cli/command/secret"
	"github.com/docker/cli/cli/command/service"
	"github.com/docker/cli/cli/command/stack"
	"github.com/docker/cli/cli/command/swarm"
	"github.com/docker/cli/cli/command/system"
	"github.com/docker/cli/cli/command/volume"
	"github.com/spf13/cobra"
)

// defaultHost is where a node's daemon listens unless told otherwise.
const defaultHost = "unix:///run/shoal/shoal.sock"

// version is set by the build.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	if err == nil {
		return
	}
	if err.Error() != "" {
		fmt.Fprintln(os.Stderr, err)
	}
	stop()
	os.Exit(exitCode(err))
}

func exitCode(err error) int {
	var status cli.StatusError
	if errors.As(err, &status) && status.StatusCode != 0 {
		return status.StatusCode
	}
	return 1
}

// run reads the global flags, connects, and runs the command.
func run(ctx context.Context, args []string, opts ...command.CLIOption) error {
	if os.Getenv("DOCKER_HOST") == "" {
		if err := os.Setenv("DOCKER_HOST", defaultHost); err != nil {
			return err
		}
	}
	docker, err := command.NewDockerCli(append(opts, command.WithBaseContext(ctx))...)
	if err != nil {
		return err
	}
	root := newRoot()
	global, _ := cli.SetupRootCommand(root)
	root.SetFlagErrorFunc(misplaced)
	new(options).addTo(root.Flags())
	top := cli.NewTopLevelCommand(root, docker, global, root.Flags())
	root.AddCommand(clusterCommands(docker)...)
	root.AddCommand(networkCommands(docker)...)
	cli.DisableFlagsInUseLine(root) // the lines have [OPTIONS]
	top.SetArgs(args)
	cmd, args, err := top.HandleGlobalFlags()
	if err != nil {
		return err
	}
	if err := handDown(root, args); err != nil {
		return err
	}
	if err := top.Initialize(); err != nil {
		return err
	}
	cmd.SetArgs(args) // the global flags are taken already
	return cmd.ExecuteContext(ctx)
}

// newRoot is netctl without any command.
func newRoot() *cobra.Command {
	return &cobra.Command{
		Use:              "netctl [OPTIONS] COMMAND [ARG...]",
		Short:            "Shoal's operator tool: the cluster, and its network as it is",
		Version:          version,
		SilenceUsage:     true,
		SilenceErrors:    true,
		TraverseChildren: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("netctl: unknown command %q; netctl --help lists the commands", args[0])
			}
			return cmd.Help()
		},
	}
}

// clusterCommands are docker/cli's.
func clusterCommands(docker command.Cli) []*cobra.Command {
	return []*cobra.Command{
		swarm.NewSwarmCommand(docker), node.NewNodeCommand(docker), service.NewServiceCommand(docker),
		stack.NewStackCommand(docker), network.NewNetworkCommand(docker), volume.NewVolumeCommand(docker),
		secret.NewSecretCommand(docker), config.NewConfigCommand(docker),
		container.NewPsCommand(docker), image.NewImagesCommand(docker), image.NewImageCommand(docker),
		image.NewPullCommand(docker), image.NewLoadCommand(docker),
		system.NewInfoCommand(docker), system.NewVersionCommand(docker), system.NewEventsCommand(docker),
	}
}
