package raftnode

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/metadb"
	"golang.org/x/sys/unix"

	"shoal/control/api"
	"shoal/control/fsm"
)

// Node is this manager's part in the Raft group. Its methods may be called from
// any goroutine until Shutdown.
type Node struct {
	cfg       Config
	raft      *raft.Raft
	log       *wal.WAL
	meta      *metadb.BoltMetaDB
	lock      *os.File
	streams   *streams
	transport *raft.NetworkTransport
	peers     *peers
	closing   sync.Once
	closeErr  error
}

// Open starts the member with what is in its directory: the log and snapshots of
// an earlier life, or nothing. A member with nothing does not take part until
// Bootstrap is called here or AddVoter on the leader.
func Open(cfg Config) (*Node, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	n := &Node{cfg: cfg, peers: newPeers(), streams: newStreams(cfg.Stream)}
	if err := n.open(hclogger{to: cfg.Logger, calm: &calm{said: map[string]time.Time{}}}); err != nil {
		return nil, errors.Join(fmt.Errorf("raft member %s in %s: %w", cfg.ID, cfg.Dir, err), n.close())
	}
	return n, nil
}

// open starts everything. One message at a time goes to each manager, with all
// that waits for it: in the library's pipeline the sender waits for ever for a
// reader that ends at the first refusal, and neither replication to that manager
// nor the shutdown of the member goes on (pipelineSend, pipelineDecode).
func (n *Node) open(log hclogger) error {
	n.transport = raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: n.streams, MaxPool: 3, MaxRPCsInFlight: 1, Timeout: n.cfg.RPCTimeout, Logger: log, MsgpackUseNewTimeFormat: true,
	})
	logDir := filepath.Join(n.cfg.Dir, "log")
	if err := privateDirs(n.cfg.Dir, logDir); err != nil {
		return err
	}
	var err error
	if n.lock, err = lockDir(n.cfg.Dir); err != nil {
		return err
	}
	// The log does not close a metadata store of its own making.
	n.meta = &metadb.BoltMetaDB{}
	if n.log, err = wal.Open(logDir, wal.WithLogger(log), wal.WithMetaStore(n.meta)); err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(n.cfg.Dir, keptSnapshots, log)
	if err != nil {
		return fmt.Errorf("open the snapshots: %w", err)
	}
	cached, err := raft.NewLogCache(cachedEntries, n.log)
	if err != nil {
		return fmt.Errorf("cache the log: %w", err)
	}
	n.raft, err = raft.NewRaft(n.cfg.raft(log), fsm.New(n.cfg.Store), cached, n.log, snapshots, n.transport)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	n.raft.RegisterObserver(raft.NewObserver(nil, false, n.peers.observe))
	return nil
}

// privateDirs makes the directories and keeps everyone else out of the first.
func privateDirs(dirs ...string) error {
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return os.Chmod(dirs[0], 0o700)
}

// lockDir keeps a second process out: it would wait for the log for ever, or
// worse, write to it. The lock ends with the file or the process.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s, is another process using it? %w", f.Name(), err), f.Close())
	}
	return f, nil
}

// Bootstrap makes this member the first and only one of a new group. It refuses,
// with kind Conflict, when the member already has a log.
func (n *Node) Bootstrap() error {
	err := n.raft.BootstrapCluster(raft.Configuration{Servers: []raft.Server{{
		ID: raft.ServerID(n.cfg.ID), Address: raft.ServerAddress(n.cfg.AdvertiseAddr),
	}}}).Error()
	if errors.Is(err, raft.ErrCantBootstrap) {
		return api.Errorf(api.Conflict, "raft member %s already belongs to a group", n.cfg.ID)
	}
	if err != nil {
		return fmt.Errorf("bootstrap raft member %s: %w", n.cfg.ID, err)
	}
	return nil
}

// Leader returns the id and address of the leader, "" when none is known.
func (n *Node) Leader() (id, addr string) {
	a, i := n.raft.LeaderWithID()
	return string(i), string(a)
}

// IsLeader says whether this member believes to be the leader.
func (n *Node) IsLeader() bool { return n.raft.State() == raft.Leader }

// LeadershipChanges delivers true when this member becomes leader and false when
// it ceases to be. It is for one reader; a slow one gets the newest value only.
// A new leader's store may lack the last commits until Barrier returns.
func (n *Node) LeadershipChanges() <-chan bool { return n.raft.LeaderCh() }

// WaitApplied returns once the local store holds the commit of the index.
func (n *Node) WaitApplied(ctx context.Context, index uint64) error {
	if err := n.cfg.Store.WaitIndex(ctx, index); err != nil {
		return api.Errorf(api.Unavailable, "wait for index %d on manager %s, which is at %d: %w",
			index, n.cfg.Name(n.cfg.ID), n.cfg.Store.View().Index(), err)
	}
	return nil
}

// Shutdown stops the member and closes its files and connections. It stays a
// member of the group: Open brings it back. A leader had better call
// TransferLeadership before.
func (n *Node) Shutdown() error {
	n.closing.Do(func() { n.closeErr = n.close() })
	return n.closeErr
}

func (n *Node) close() error {
	var errs []error
	if n.raft != nil {
		errs = append(errs, n.raft.Shutdown().Error())
	}
	if n.transport != nil {
		errs = append(errs, n.transport.Close())
	}
	n.streams.closeAll()
	if n.log != nil {
		errs = append(errs, n.log.Close())
	}
	if n.meta != nil {
		errs = append(errs, n.meta.Close())
	}
	if n.lock != nil {
		errs = append(errs, n.lock.Close())
	}
	return errors.Join(errs...)
}

// timeout is how long ctx leaves, bounded by most.
func timeout(ctx context.Context, most time.Duration) time.Duration {
	deadline, ok := ctx.Deadline()
	if !ok {
		return most
	}
	return max(min(most, time.Until(deadline)), time.Millisecond)
}
