package fabric

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"shoal/overlay/endpoint"
)

const memoryFile = "endpoints"

// Between two writings of the endpoint table lies memoryShare times what the last
// one took, within bounds.
const (
	memoryShare    = 10
	memoryPaceLow  = 50 * time.Millisecond
	memoryPaceHigh = 2 * time.Second
)

// Remember has a held table take in what Memorize wrote in an earlier run, so that
// nothing is taken out of the kernel because its owner has not been heard yet. An
// error says why that is not possible; the table is then as it was.
func Remember(dir string, table *endpoint.Table) error {
	raw, err := os.ReadFile(filepath.Join(dir, memoryFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("endpoints of an earlier run: %w", err)
	}
	if err := table.Remember(raw); err != nil {
		return fmt.Errorf("endpoints of an earlier run in %s: %w", filepath.Join(dir, memoryFile), err)
	}
	return nil
}

// Memorize writes the table to the directory after its changes, until ctx ends.
// Failures go to failed: the next start then knows less.
func Memorize(ctx context.Context, dir string, table *endpoint.Table, failed func(error)) {
	var written uint64
	for {
		changed, pause := table.Changed(), time.Duration(0)
		if now := table.View().Version(); now != written {
			began := time.Now()
			if err := writeMemory(filepath.Join(dir, memoryFile), table.Memory()); err != nil {
				failed(err)
			}
			written = now
			pause = min(max(memoryShare*time.Since(began), memoryPaceLow), memoryPaceHigh)
		}
		if ctx.Err() != nil {
			return
		}
		select { // what changed last is written even at the end
		case <-ctx.Done():
		case <-time.After(pause):
			select {
			case <-ctx.Done():
			case <-changed:
			}
		}
	}
}

// writeMemory replaces the file in one step. It need not survive a power cut: the
// kernel's tables do not either.
func writeMemory(path string, content []byte) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, content, 0o600); err != nil {
		return fmt.Errorf("remember endpoints: %w", err)
	}
	return os.Rename(tmp, path)
}
