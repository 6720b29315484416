package fsm

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"shoal/control/api"
)

// Command is what a log entry holds: operations to apply as one transaction, and
// the proposer's time, which becomes the objects' time.
type Command struct {
	Now time.Time
	Ops []api.Op
}

const (
	// formatJSON, the first byte of an entry, says that JSON follows.
	formatJSON = 1
	// MaxCommandBytes bounds an entry; the log itself takes 64 MiB at most.
	MaxCommandBytes = 16 << 20
)

// Encode writes a command as a log entry. It refuses, with an api.Error, what
// Decode would refuse on the managers.
func Encode(c Command) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, api.Errorf(api.Invalid, "%w", err)
	}
	raw, err := json.Marshal(c)
	if err != nil {
		return nil, api.Errorf(api.Invalid, "encode %d operations: %w", len(c.Ops), err)
	}
	if len(raw) >= MaxCommandBytes {
		return nil, api.Errorf(api.Invalid, "a transaction of %d operations takes %d bytes, %d are allowed",
			len(c.Ops), len(raw), MaxCommandBytes)
	}
	return append([]byte{formatJSON}, raw...), nil
}

// Decode reads what Encode wrote.
func Decode(entry []byte) (Command, error) {
	var c Command
	switch {
	case len(entry) == 0:
		return c, errors.New("empty command")
	case len(entry) > MaxCommandBytes:
		return c, fmt.Errorf("command of %d bytes, %d are allowed", len(entry), MaxCommandBytes)
	case entry[0] != formatJSON:
		return c, fmt.Errorf("command of unknown format %d", entry[0])
	}
	if err := json.Unmarshal(entry[1:], &c); err != nil {
		return Command{}, fmt.Errorf("decode command: %w", err)
	}
	if err := c.check(); err != nil {
		return Command{}, err
	}
	return c, nil
}

func (c Command) check() error {
	for i, op := range c.Ops {
		if op.Object == nil {
			return fmt.Errorf("operation %d has no object", i)
		}
		switch op.Action {
		case api.ActionCreate, api.ActionUpdate, api.ActionDelete, api.ActionStatus, api.ActionRelease:
		default:
			return fmt.Errorf("operation %d has the unknown action %q", i, op.Action)
		}
	}
	return nil
}
