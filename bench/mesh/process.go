package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"shoal/bench/mesh/load"
)

// process runs in a namespace until its input is closed, which happens at the
// latest when this program ends, however it ends.
type process struct {
	cmd    *exec.Cmd
	input  io.WriteCloser
	output *bufio.Reader
	errors *tail
	// pid is whose CPU time counts.
	pid int
}

// tail keeps the end of what a process complains about.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailSize = 2048

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-tailSize):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.text))
}

// start runs this program in a role, in the namespace that a path names, with a
// priority as of nice(1).
func start(namespace string, nice int, role ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	cmd := exec.Command("nsenter", append([]string{"--net=" + namespace, "--", "nice", "-n", strconv.Itoa(nice), self}, role...)...)
	p := &process{cmd: cmd, errors: &tail{}}
	cmd.Stderr = p.errors
	// A signal for this program is not for the others: they end with their input.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if p.input, err = cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start %s: %w", strings.Join(role, " "), err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", strings.Join(role, " "), err)
	}
	p.output = bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", strings.Join(role, " "), err)
	}
	p.pid = cmd.Process.Pid
	return p, nil
}

// end closes the process's input and waits for it.
func (p *process) end() error {
	err := p.input.Close()
	hard := time.AfterFunc(10*time.Second, func() { _ = p.cmd.Process.Kill() }) // what is gone needs no signal
	defer hard.Stop()
	if waited := p.cmd.Wait(); waited != nil {
		err = errors.Join(err, fmt.Errorf("%s: %w: %s", strings.Join(p.cmd.Args, " "), waited, p.errors))
	}
	return err
}

// endWithInput ends this process when nobody holds the other end of its input.
func endWithInput() {
	_, _ = io.Copy(io.Discard, os.Stdin) // broken or closed, it is over
	os.Exit(0)
}

// keep runs a program, says its process number, and kills it when the input ends.
func keep(args []string) error {
	if len(args) == 0 {
		return errors.New("keep takes a command")
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", args[0], err)
	}
	fmt.Println(cmd.Process.Pid)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	input := make(chan struct{})
	go func() { defer close(input); _, _ = io.Copy(io.Discard, os.Stdin) }() // broken or closed, it is over
	select {
	case err := <-ended:
		return fmt.Errorf("%s has ended: %w", args[0], err)
	case <-input:
		err := cmd.Process.Kill()
		<-ended
		return err
	}
}

// agent is a client in a namespace.
type agent struct {
	*process
	where string
}

// answer is a line of an agent.
type answer struct {
	Result load.Result
	Error  string
}

// do has a job done. An agent that does not come back in time is broken.
func (a *agent) do(ctx context.Context, j load.Job) (load.Result, error) {
	if err := json.NewEncoder(a.input).Encode(j); err != nil {
		return load.Result{}, fmt.Errorf("give a job to the client in %s: %w: %s", a.where, err, a.errors)
	}
	lines := make(chan string, 1)
	go func() { line, _ := a.output.ReadString('\n'); lines <- line }() // half a line does not decode
	var line string
	select {
	case line = <-lines:
	case <-ctx.Done():
		return load.Result{}, ctx.Err()
	}
	var got answer
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		return load.Result{}, fmt.Errorf("result %q of the client in %s: %w: %s", line, a.where, err, a.errors)
	}
	if got.Error != "" {
		return got.Result, errors.New(got.Error)
	}
	return got.Result, nil
}

// cpuTime is what the processes have run so far, with the kernel's work in their
// name: where interrupts have no account of their own, packets are worked on the
// account of whoever sent them. What is left over for later is the kernel
// threads' that are passed too.
func cpuTime(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
		if err != nil || len(threads) == 0 {
			return 0, errors.Join(fmt.Errorf("process %d does not run", pid), err)
		}
		for _, path := range threads {
			raw, err := os.ReadFile(path)
			if err != nil {
				continue // a thread that has ended
			}
			first, _, _ := strings.Cut(string(raw), " ")
			ns, err := strconv.ParseInt(first, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read %s: %w", path, err)
			}
			sum += time.Duration(ns)
		}
	}
	return sum, nil
}

// packetThreads are the kernel's threads that take over packets when there are many.
func packetThreads() ([]int, error) {
	comms, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return nil, fmt.Errorf("list the processes: %w", err)
	}
	var found []int
	for _, comm := range comms {
		raw, err := os.ReadFile(comm)
		if err != nil || !strings.HasPrefix(string(raw), "ksoftirqd/") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(comm)))
		if err != nil {
			return nil, fmt.Errorf("process number in %s: %w", comm, err)
		}
		found = append(found, pid)
	}
	return found, nil
}

// listening waits until a port answers a client.
func (a *agent) listening(ctx context.Context, at netip.AddrPort, patience time.Duration) error {
	for end := time.Now().Add(patience); ; {
		_, err := a.do(ctx, load.Job{Kind: load.Ask, Target: at, Conns: 1, Length: time.Millisecond})
		if err == nil || ctx.Err() != nil {
			return ctx.Err()
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s does not answer a client in %s: %w", at, a.where, err)
		}
		time.Sleep(20 * time.Millisecond) // who asks must not starve who answers
	}
}
