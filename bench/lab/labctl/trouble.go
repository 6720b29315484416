package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"shoal/bench/lab"
)

// trouble is what can be done to a host, and what is said once it is done.
type trouble struct {
	do   func(ctx context.Context, l *lab.Lab, h lab.Host) error
	done string
}

var troubles = map[string]trouble{
	"cut":    {cut, "its power is cut: cable out, daemon and tasks killed"},
	"stop":   {stop, "shoald is stopped, its tasks go on"},
	"kill":   {kill, "shoald is killed, its tasks go on"},
	"unplug": {unplug, "its cable is out"},
	"plug":   {plug, "its cable is in"},
	"freeze": {freeze, "its processes stand still"},
	"thaw":   {thaw, "its processes go on"},
}

func cut(ctx context.Context, l *lab.Lab, h lab.Host) error    { return l.PowerCut(ctx, h) }
func stop(ctx context.Context, l *lab.Lab, h lab.Host) error   { return l.StopDaemon(ctx, h) }
func kill(ctx context.Context, l *lab.Lab, h lab.Host) error   { return l.KillDaemon(ctx, h) }
func unplug(ctx context.Context, l *lab.Lab, h lab.Host) error { return l.Unplug(ctx, h) }
func plug(ctx context.Context, l *lab.Lab, h lab.Host) error   { return l.Plug(ctx, h) }
func freeze(_ context.Context, l *lab.Lab, h lab.Host) error   { return l.Freeze(h) }
func thaw(_ context.Context, l *lab.Lab, h lab.Host) error     { return l.Thaw(h) }

// heal starts again what was killed or cut, and says what was started.
func heal(ctx context.Context, l *lab.Lab) error {
	away := slices.DeleteFunc(l.Hosts(), func(h lab.Host) bool { return runs(l, h) })
	if err := l.Heal(ctx); err != nil {
		return err
	}
	return say("%s", healed(slices.DeleteFunc(away, func(h lab.Host) bool { return !runs(l, h) })))
}

func runs(l *lab.Lab, h lab.Host) bool {
	_, runs := l.DaemonPid(h)
	return runs
}

// healed is what is said of a lab that is whole again.
func healed(started []lab.Host) string {
	if len(started) == 0 {
		return "no daemon had to be started, every cable is in, nothing is frozen"
	}
	var names []string
	for _, h := range started {
		names = append(names, h.Name)
	}
	return fmt.Sprintf("shoald is started again on %s, every cable is in, all nodes are ready", strings.Join(names, ", "))
}

// say prints one line.
func say(format string, args ...any) error {
	_, err := fmt.Printf(format+"\n", args...)
	return err
}
