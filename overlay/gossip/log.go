package gossip

import (
	"bytes"
	"context"
	"log"
	"log/slog"
)

// logAdapter turns the lines of memberlist and Serf, "[LEVEL] component: text",
// into structured ones.
type logAdapter struct{ to *slog.Logger }

func newLogAdapter(to *slog.Logger) *log.Logger { return log.New(logAdapter{to}, "", 0) }

// Write logs one line. It never fails.
func (a logAdapter) Write(line []byte) (int, error) {
	n := len(line)
	level, text := splitLevel(bytes.TrimSpace(line))
	a.to.Log(context.Background(), level, string(text))
	return n, nil
}

// splitLevel maps the levels one step down: what these libraries call an error or
// a warning is a peer that does not answer, which is their everyday business.
func splitLevel(line []byte) (slog.Level, []byte) {
	for prefix, level := range map[string]slog.Level{
		"[ERR] ": slog.LevelInfo, "[WARN] ": slog.LevelInfo, "[INFO] ": slog.LevelDebug, "[DEBUG] ": slog.LevelDebug - 4,
	} {
		if rest, ok := bytes.CutPrefix(line, []byte(prefix)); ok {
			return level, rest
		}
	}
	return slog.LevelDebug, line
}
