// Command shoald is Shoal's node daemon: a manager, a worker, or both, and the
// Docker Engine API on a unix socket.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"shoal/node/daemon"
	"shoal/node/resolver"
	"shoal/node/runtime/containerd"
)

// version is set by the build.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use: "shoald", Short: "Shoal's node daemon", Version: version, SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(runCommand(), logWriterCommand(), resolverCommand())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "shoald:", err)
		stop()
		os.Exit(1)
	}
}

func runCommand() *cobra.Command {
	cfg := daemon.Config{Version: version}
	var level string
	var dns []string
	cmd := &cobra.Command{
		Use: "run", Short: "Run the node until it is told to stop; its tasks go on", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var l slog.Level
			if err := l.UnmarshalText([]byte(level)); err != nil {
				return fmt.Errorf("--log-level %s: choose debug, info, warn or error", level)
			}
			cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: l}))
			if os.Geteuid() != 0 {
				return errors.New("the node's daemon makes network namespaces and mounts: run it as root")
			}
			if err := servers(&cfg, dns); err != nil {
				return err
			}
			return daemon.Run(cmd.Context(), cfg)
		},
	}
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "localhost"
	}
	f := cmd.Flags()
	f.StringVar(&cfg.StateDir, "state-dir", "/var/lib/shoal", "what the node must remember")
	f.StringVar(&cfg.ExecDir, "exec-dir", "/run/shoal", "network namespaces and what else a reboot may take away")
	f.StringVar(&cfg.Socket, "socket", "/run/shoal/shoal.sock", "unix socket of the Docker API")
	f.StringVar(&cfg.Hostname, "hostname", hostname, "the node's name")
	f.StringVar(&cfg.Containerd, "containerd", "/run/containerd/containerd.sock", "containerd's socket")
	f.StringVar(&cfg.ContainerdNamespace, "containerd-namespace", "shoal", "the namespace in containerd that is this node's own")
	f.StringVar(&cfg.ResolvConf, "resolv-conf", "/etc/resolv.conf", "the machine's name servers, search list and options")
	f.StringArrayVar(&dns, "dns", nil, "name server for tasks that name none, in place of the machine's; asked from the task's namespace")
	f.StringArrayVar(&cfg.DNS.Search, "dns-search", nil, "search domain for tasks that name none; . for none")
	f.StringArrayVar(&cfg.DNS.Options, "dns-opt", nil, "option in /etc/resolv.conf for tasks that name none")
	f.StringVar(&cfg.Balancer, "balancer", "auto", "load balancer: auto, ipvs or nft")
	f.DurationVar(&cfg.Election, "raft-election-timeout", 0, "how long managers wait for a leader's sign of life (0: 300ms)")
	f.Float64Var(&cfg.GossipScale, "gossip-scale", 1, "stretches the pace of gossip on slow machines")
	f.StringVar(&level, "log-level", "info", "debug, info, warn or error")
	return cmd
}

// logWriterCommand is what containerd's shims start for every container, so that
// its output is kept whether or not the daemon runs.
func logWriterCommand() *cobra.Command {
	return &cobra.Command{
		Use: containerd.LogCommand + " PATH", Hidden: true, Args: cobra.ExactArgs(1),
		Run: func(_ *cobra.Command, args []string) { containerd.LogWriterMain(args[0]) },
	}
}

// servers reads the addresses of --dns.
func servers(cfg *daemon.Config, texts []string) error {
	for _, text := range texts {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("--dns %s: give the address of a name server", text)
		}
		cfg.DNS.Servers = append(cfg.DNS.Servers, a)
	}
	return nil
}

// resolverCommand is what the daemon starts to answer the tasks' questions
// whether or not it runs itself.
func resolverCommand() *cobra.Command {
	return &cobra.Command{
		Use: resolver.Command + " DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return resolver.Main(args[0]) },
	}
}
