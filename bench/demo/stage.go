package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"

	"shoal/bench/lab"
	"shoal/bench/load"
)

// stage is what the show plays on: the hosts, the operator's tool, the paper
// that is written to, and what was judged so far.
type stage struct {
	lab    *lab.Lab
	hosts  []lab.Host
	dir    string
	bin    string
	images []string

	out      io.Writer
	terminal bool
	claims   claims

	// front is the host whose daemon the operator talks to.
	front lab.Host
	// client is the host of the task that asks; dark names one whose power is cut.
	client lab.Host
	dark   string
	// prober asks while the bad days happen.
	prober *load.Prober
	// background is what still runs when a step ends.
	background sync.WaitGroup
	stop       []context.CancelFunc
	broken     chan error
}

func newStage(l *lab.Lab, opts settings, out *os.File) *stage {
	s := &stage{
		lab: l, hosts: l.Hosts(), dir: opts.lab.Dir, bin: opts.bin, images: opts.images,
		out: out, broken: make(chan error, 1),
	}
	info, err := out.Stat()
	s.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("TERM") != ""
	s.front = s.hosts[0]
	return s
}

// print writes to the paper. A paper that is gone ends the show by SIGPIPE.
func (s *stage) print(text string) { _, _ = io.WriteString(s.out, text) }

func (s *stage) bold(text string) string {
	if s.terminal {
		return "\x1b[1m" + text + "\x1b[0m"
	}
	return text
}

func (s *stage) heading(title string) { s.print("\n" + s.bold("== "+title) + "\n") }

// note is a line of the show's own words.
func (s *stage) note(format string, args ...any) {
	s.print("-- " + fmt.Sprintf(format, args...) + "\n")
}

// claim judges, and says so at once.
func (s *stage) claim(text string, held bool, figure string, args ...any) {
	c := claim{text: text, held: held, figure: fmt.Sprintf(figure, args...)}
	s.claims = append(s.claims, c)
	s.print("-- " + s.bold(verdict(held)) + ": " + text + ": " + c.figure + "\n")
}

// host finds a host by name.
func (s *stage) host(name string) (lab.Host, error) { return s.lab.Host(name) }

// start runs f beside the show until the show ends; a panic of it ends the show
// instead of the program, which has a lab to take down.
func (s *stage) start(ctx context.Context, f func(context.Context)) context.CancelFunc {
	ctx, cancel := context.WithCancel(ctx)
	s.stop = append(s.stop, cancel)
	s.background.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				select {
				case s.broken <- fmt.Errorf("panic beside the show: %v\n%s", p, debug.Stack()):
				default:
				}
			}
		}()
		f(ctx)
	})
	return cancel
}

// stopBackground ends everything that start began.
func (s *stage) stopBackground() {
	for _, cancel := range s.stop {
		cancel()
	}
	s.background.Wait()
	select {
	case err := <-s.broken:
		s.claim("the show ran to its end", false, "%v", err)
	default:
	}
}

// logTails prints of each daemon's log, which goes with the lab, the end and how
// a panic began.
func (s *stage) logTails() {
	for _, h := range s.hosts {
		raw, err := os.ReadFile(h.LogFile())
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
		s.note("the log of %s ends:\n%s", h.Name, strings.Join(lines[max(0, len(lines)-15):], "\n"))
		if at := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "panic: ") }); at >= 0 {
			s.note("a panic in it began:\n%s", strings.Join(lines[max(0, at-20):min(len(lines), at+5)], "\n"))
		}
	}
}

func (s *stage) program(name string) string {
	path := filepath.Join(s.bin, name)
	if !strings.Contains(path, "/") {
		return "./" + path
	}
	return path
}
