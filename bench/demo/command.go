package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"

	"shoal/bench/lab"
)

// commandPatience bounds one command of the show.
const commandPatience = 90 * time.Second

// tokens are what may join a cluster: they are not for the paper.
var tokens = regexp.MustCompile(`SWMTKN-1-[0-9a-z]+-[0-9a-z]+`)

func masked(text string) string { return tokens.ReplaceAllString(text, "SWMTKN-1-********") }

// quoted is a command line as a person would type it.
func quoted(args []string) string {
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = arg
		if arg == "" || strings.ContainsAny(arg, " \t\n'\"$|&;<>(){}*?[]\\`#") {
			words[i] = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

// at is netctl for one host.
func (s *stage) at(h lab.Host, args ...string) []string {
	return append([]string{s.program("netctl"), "-H", "unix://" + h.Socket}, args...)
}

// netctl shows a command of the operator at a host, and returns its output.
func (s *stage) netctl(ctx context.Context, h lab.Host, args ...string) (string, error) {
	command := s.at(h, args...)
	return s.run(ctx, quoted(command), command)
}

// command shows any other command.
func (s *stage) command(ctx context.Context, args ...string) (string, error) {
	return s.run(ctx, quoted(args), args)
}

// piped shows a shell's pipeline that begins with a command.
func (s *stage) piped(ctx context.Context, command []string, pipe string) (string, error) {
	line := quoted(command) + " | " + pipe
	return s.run(ctx, line, []string{"sh", "-c", line})
}

// run prints a command, runs it and shows what it says.
func (s *stage) run(ctx context.Context, shown string, args []string) (string, error) {
	s.print(s.bold("$ "+masked(shown)) + "\n")
	output, err := execute(ctx, args)
	s.print(indented(masked(output)))
	if err != nil {
		return output, fmt.Errorf("%s: %w", masked(shown), err)
	}
	return output, nil
}

// execute runs a command and returns both of its outputs as one.
func execute(ctx context.Context, args []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandPatience)
	defer cancel()
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	return output.String(), err
}

// progress shows a command with its progress bars: drawn by itself on a
// terminal, elsewhere as lines, each once.
func (s *stage) progress(ctx context.Context, h lab.Host, args ...string) error {
	command := s.at(h, args...)
	if !s.terminal {
		s.print("$ " + quoted(command) + "\n")
		output, err := execute(ctx, command)
		s.print(indented(once(output)))
		if err != nil {
			return fmt.Errorf("%s: %w", quoted(command), err)
		}
		return nil
	}
	s.print(s.bold("$ "+quoted(command)) + "\n")
	ctx, cancel := context.WithTimeout(ctx, commandPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", quoted(command), err)
	}
	return nil
}

// once leaves out what progress bars repeat when they have no terminal to draw
// on.
func once(output string) string {
	var lines []string
	for line := range strings.Lines(output) {
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

func indented(output string) string {
	if strings.TrimSpace(output) == "" {
		return ""
	}
	var text strings.Builder
	for line := range strings.Lines(strings.Trim(output, "\n")) {
		text.WriteString("    " + strings.TrimRight(line, " \n") + "\n")
	}
	return text.String()
}
