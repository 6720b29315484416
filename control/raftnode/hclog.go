package raftnode

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// hclogger passes the library's messages on to slog.
type hclogger struct {
	to   *slog.Logger
	name string
	args []any
	calm *calm
}

var levels = map[hclog.Level]slog.Level{
	hclog.Trace: slog.LevelDebug - 4, hclog.Debug: slog.LevelDebug, hclog.Info: slog.LevelInfo,
	hclog.Warn: slog.LevelWarn, hclog.Error: slog.LevelError,
}

// Log writes a message with key-value pairs.
func (l hclogger) Log(level hclog.Level, msg string, args ...any) {
	to, ok := levels[level]
	if ok && to >= slog.LevelWarn && !l.calm.first(msg, args, time.Now()) {
		to = slog.LevelDebug
	}
	if !ok || !l.to.Enabled(context.Background(), to) {
		return
	}
	l.to.Log(context.Background(), to, "raft: "+msg, args...)
}

// calm tells a warning from its repetitions: Raft says of a peer that is away
// many times a second that it is away.
type calm struct {
	mu   sync.Mutex
	said map[string]time.Time
}

// calmFor is how long a repeated warning is kept from the log, calmMost how many
// different ones are remembered.
const (
	calmFor  = 10 * time.Second
	calmMost = 256
)

// first says whether the warning is news: it differs by its text and by whom it
// is about, which Raft gives first.
func (c *calm) first(msg string, args []any, now time.Time) bool {
	key := msg
	if len(args) > 1 {
		key += fmt.Sprint(args[:2]...)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if last, known := c.said[key]; known && now.Sub(last) < calmFor {
		return false
	}
	if len(c.said) >= calmMost {
		clear(c.said)
	}
	c.said[key] = now
	return true
}

// Trace logs below debug level.
func (l hclogger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }

// Debug logs at debug level.
func (l hclogger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }

// Info logs at info level.
func (l hclogger) Info(msg string, args ...any) { l.Log(hclog.Info, msg, args...) }

// Warn logs at warning level.
func (l hclogger) Warn(msg string, args ...any) { l.Log(hclog.Warn, msg, args...) }

// Error logs at error level.
func (l hclogger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l hclogger) enabled(level hclog.Level) bool {
	return l.to.Enabled(context.Background(), levels[level])
}

// IsTrace says whether Trace writes anything.
func (l hclogger) IsTrace() bool { return l.enabled(hclog.Trace) }

// IsDebug says whether Debug writes anything.
func (l hclogger) IsDebug() bool { return l.enabled(hclog.Debug) }

// IsInfo says whether Info writes anything.
func (l hclogger) IsInfo() bool { return l.enabled(hclog.Info) }

// IsWarn says whether Warn writes anything.
func (l hclogger) IsWarn() bool { return l.enabled(hclog.Warn) }

// IsError says whether Error writes anything.
func (l hclogger) IsError() bool { return l.enabled(hclog.Error) }

// ImpliedArgs returns the pairs that every message carries.
func (l hclogger) ImpliedArgs() []any { return l.args }

// With returns a logger whose messages carry the pairs.
func (l hclogger) With(args ...any) hclog.Logger {
	all := append(append([]any{}, l.args...), args...)
	return hclogger{to: l.to.With(args...), name: l.name, args: all, calm: l.calm}
}

// Name returns the logger's name.
func (l hclogger) Name() string { return l.name }

// Named returns a logger with name added to its own.
func (l hclogger) Named(name string) hclog.Logger {
	if l.name != "" {
		name = l.name + "." + name
	}
	return l.ResetNamed(name)
}

// ResetNamed returns a logger with another name.
func (l hclogger) ResetNamed(name string) hclog.Logger {
	l.name = name
	return l
}

// SetLevel does nothing: the slog handler decides.
func (l hclogger) SetLevel(hclog.Level) {}

// GetLevel returns the lowest level that is written.
func (l hclogger) GetLevel() hclog.Level {
	for level := hclog.Trace; level <= hclog.Error; level++ {
		if l.enabled(level) {
			return level
		}
	}
	return hclog.Off
}

// StandardLogger returns a log.Logger that writes here at info level.
func (l hclogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(l.to.Handler(), slog.LevelInfo)
}

// StandardWriter returns the writer of StandardLogger.
func (l hclogger) StandardWriter(opts *hclog.StandardLoggerOptions) io.Writer {
	return l.StandardLogger(opts).Writer()
}
