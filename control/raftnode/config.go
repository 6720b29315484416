package raftnode

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/hashicorp/raft"

	"shoal/control/store"
)

// Config is what a Node is made of. Fields without a default must be set.
type Config struct {
	// ID is the node's id, AdvertiseAddr the host:port under which the other
	// managers reach this one's control listener.
	ID, AdvertiseAddr string
	// Dir is the directory of log and snapshots, made with mode 0700 when
	// missing: the state holds the cluster's CA key.
	Dir string
	// Store is where the state goes. It must be new: the log fills it.
	Store *store.Store
	// Stream connects managers; the Node closes it.
	Stream raft.StreamLayer
	// Name gives a manager's name for messages. The default is the id itself.
	Name func(id string) string
	// Logger takes Raft's own messages. The default is slog.Default.
	Logger *slog.Logger
	// Election is the time without a leader's sign of life after which a
	// manager stands for election, drawn anew each time between one and two
	// times the value. A leader that hears from no majority for the value
	// steps down. The default is 300 ms, the least 20 ms.
	Election time.Duration
	// NoLeaderWait bounds how long a call waits for a leader to appear before
	// it reports that there is none. The default is 3 times Election.
	NoLeaderWait time.Duration
	// RPCTimeout bounds a message to another manager and its answer, snapshots
	// excepted. The default is 2 s.
	RPCTimeout time.Duration
	// SnapshotEntries is the number of log entries after which a snapshot is
	// written, and the number kept behind it for managers that lag. The
	// default is 10,000.
	SnapshotEntries uint64
	// SnapshotCheck is how often SnapshotEntries is looked at. The default is 30 s.
	SnapshotCheck time.Duration
}

const (
	defaultElection        = 300 * time.Millisecond
	minElection            = 20 * time.Millisecond
	defaultRPCTimeout      = 2 * time.Second
	defaultSnapshotEntries = 10_000
	defaultSnapshotCheck   = 30 * time.Second
	// commitNotice is how long an idle leader waits before it tells the others
	// how far the log is committed: a follower lags that much, up to twice. Where
	// the election timeout is longer than the default, so is this, and the talk of
	// managers that have nothing to do is as much rarer.
	commitNotice = 25 * time.Millisecond
	// maxBatch is the most entries that share one write to disk and one message.
	maxBatch = 256
	// keptSnapshots is one spare, should the newest be damaged.
	keptSnapshots = 2
	// cachedEntries are kept in memory for followers, which saves reading them.
	cachedEntries = 512
)

// withDefaults fills in what is not set and refuses what cannot work.
func (c Config) withDefaults() (Config, error) {
	if c.ID == "" || c.AdvertiseAddr == "" || c.Dir == "" || c.Store == nil || c.Stream == nil {
		return c, errors.New("raftnode: ID, AdvertiseAddr, Dir, Store and Stream must be set")
	}
	if c.Name == nil {
		c.Name = func(id string) string { return id }
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	setDefault(&c.Election, defaultElection)
	setDefault(&c.NoLeaderWait, 3*c.Election)
	setDefault(&c.RPCTimeout, defaultRPCTimeout)
	setDefault(&c.SnapshotEntries, defaultSnapshotEntries)
	setDefault(&c.SnapshotCheck, defaultSnapshotCheck)
	if c.Election < minElection {
		return c, fmt.Errorf("raftnode: election timeout %s is below %s", c.Election, minElection)
	}
	return c, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// raft is the configuration of the library.
func (c Config) raft(log hclogger) *raft.Config {
	r := raft.DefaultConfig()
	r.LocalID = raft.ServerID(c.ID)
	r.HeartbeatTimeout, r.ElectionTimeout, r.LeaderLeaseTimeout = c.Election, c.Election, c.Election
	r.CommitTimeout = max(min(commitNotice, c.Election/4), c.Election/(defaultElection/commitNotice))
	r.MaxAppendEntries, r.BatchApplyCh = maxBatch, true
	r.SnapshotThreshold, r.TrailingLogs, r.SnapshotInterval = c.SnapshotEntries, c.SnapshotEntries, c.SnapshotCheck
	r.Logger = log
	r.NoLegacyTelemetry = true
	return r
}
