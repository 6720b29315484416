package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a process by its number and its start, which together are one
// process only, also after the number was used again.
type process struct {
	pid    int
	parent int
	state  string
	start  string
}

// parseStat reads /proc/PID/stat, whose second field is a name in brackets that
// may hold anything.
func parseStat(raw []byte) (process, error) {
	end := bytes.LastIndexByte(raw, ')')
	begin := bytes.IndexByte(raw, ' ')
	if begin < 0 || end < 0 {
		return process{}, fmt.Errorf("process status %q has no name", raw)
	}
	fields := strings.Fields(string(raw[end+1:]))
	if len(fields) < 20 {
		return process{}, fmt.Errorf("process status %q is short", raw)
	}
	pid, err := strconv.Atoi(string(raw[:begin]))
	if err != nil {
		return process{}, fmt.Errorf("process status %q: %w", raw, err)
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return process{}, fmt.Errorf("process status %q: %w", raw, err)
	}
	return process{pid: pid, parent: parent, state: fields[0], start: fields[19]}, nil
}

func readProcess(pid int) (process, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, fmt.Errorf("read the process status: %w", err)
	}
	return parseStat(raw)
}

// alive reports whether this very process still runs.
func (p process) alive() bool {
	now, err := readProcess(p.pid)
	return err == nil && now.start == p.start && now.state != "Z" && now.state != "X"
}

// signal sends a signal, unless the process is gone.
func (p process) signal(s syscall.Signal) error {
	if !p.alive() {
		return nil
	}
	if err := syscall.Kill(p.pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("send signal %d to process %d: %w", s, p.pid, err)
	}
	return nil
}

// launch starts a daemon that outlives this process, and writes its pid file.
func launch(cmd *exec.Cmd, pidFile, logFile string) error {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", cmd.Path, err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", cmd.Path, err)
	}
	p, err := readProcess(cmd.Process.Pid)
	go func() { _ = cmd.Wait() }() // takes the dead child away while this process lives
	if err != nil {
		return fmt.Errorf("%s ended at once: %w%s", cmd.Path, err, tail(logFile))
	}
	if err := os.WriteFile(pidFile, fmt.Appendf(nil, "%d %s\n", p.pid, p.start), 0o644); err != nil {
		return errors.Join(fmt.Errorf("write the pid file of %s: %w", cmd.Path, err), p.signal(syscall.SIGKILL))
	}
	return nil
}

// recorded is the process of a pid file; false when it does not run.
func recorded(pidFile string) (process, bool) {
	raw, err := os.ReadFile(pidFile)
	if err != nil {
		return process{}, false
	}
	var p process
	if _, err := fmt.Sscan(string(raw), &p.pid, &p.start); err != nil || p.pid <= 1 {
		return process{}, false
	}
	return p, p.alive()
}

// shims are the shims of a containerd namespace of this lab, known by their own
// command line, and every process below them.
func (l *Lab) shims(namespace string) ([]process, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	found := map[int]process{}
	for _, p := range all {
		if l.isShim(p.pid, namespace) {
			found[p.pid] = p
		}
	}
	for grown := true; grown; {
		grown = false
		for _, p := range all {
			_, have := found[p.pid]
			if _, below := found[p.parent]; below && !have {
				found[p.pid], grown = p, true
			}
		}
	}
	list := make([]process, 0, len(found))
	for _, p := range all {
		if _, ok := found[p.pid]; ok {
			list = append(list, p)
		}
	}
	return list, nil
}

func (l *Lab) isShim(pid int, namespace string) bool {
	args := arguments(pid)
	return len(args) > 0 && filepath.Base(args[0]) == "containerd-shim-runc-v2" &&
		follows(args, "-address", l.containerdSocket()) && follows(args, "-namespace", namespace)
}

func follows(args []string, flag, value string) bool {
	at := slices.Index(args, flag)
	return at >= 0 && at+1 < len(args) && args[at+1] == value
}

func arguments(pid int) []string {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return nil
	}
	return strings.Split(strings.TrimRight(string(raw), "\x00"), "\x00")
}

// processes lists what runs now; what ends meanwhile is left out.
func processes() ([]process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list the processes: %w", err)
	}
	var all []process
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if p, err := readProcess(pid); err == nil {
			all = append(all, p)
		}
	}
	return all, nil
}

// killAll kills processes and waits until they are gone.
func killAll(ctx context.Context, list []process) error {
	var errs []error
	for _, p := range list {
		errs = append(errs, p.signal(syscall.SIGKILL))
	}
	errs = append(errs, until(ctx, 20*time.Second, "the end of killed processes", func() error {
		for _, p := range list {
			if p.alive() {
				return fmt.Errorf("process %d still runs", p.pid)
			}
		}
		return nil
	}))
	return errors.Join(errs...)
}

// until asks check until it is content, for at most patience.
func until(ctx context.Context, patience time.Duration, what string, check func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	pause := time.NewTicker(20 * time.Millisecond)
	defer pause.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		var final permanent
		if errors.As(err, &final) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, err)
		case <-pause.C:
		}
	}
}

// permanent is an error that no patience heals.
type permanent struct{ error }

// tail is the end of a log, to put behind an error.
func tail(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil || len(raw) == 0 {
		return ""
	}
	return "\n" + path + " ends:\n" + string(raw[max(0, len(raw)-2000):])
}
