package dockerapi

import (
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/ca"
	"shoal/control/dockerapi/wire"
	"shoal/control/store"
)

// Defaults of the cluster's spec. They are Docker's but for the heartbeat, which
// is as at the founding of a cluster: a dead node is noticed within seconds.
const (
	defaultHistory       = int64(5)
	defaultHeartbeat     = time.Second
	defaultCertExpiry    = 90 * 24 * time.Hour
	defaultSnapshot      = uint64(10_000)
	defaultSlowFollowers = uint64(500)
	defaultElectionTick  = 10
	defaultHeartbeatTick = 1
	minCertExpiry        = time.Hour
)

// insertSwarmDefaults writes the defaults where the spec is zero, which an
// update means by zero.
func insertSwarmDefaults(s *swarm.Spec) {
	history, keep := defaultHistory, uint64(0)
	orNew(&s.Orchestration.TaskHistoryRetentionLimit, &history)
	orNew(&s.Raft.KeepOldSnapshots, &keep)
	or(&s.Raft.SnapshotInterval, defaultSnapshot)
	or(&s.Raft.LogEntriesForSlowFollowers, defaultSlowFollowers)
	or(&s.Raft.ElectionTick, defaultElectionTick)
	or(&s.Raft.HeartbeatTick, defaultHeartbeatTick)
	or(&s.Dispatcher.HeartbeatPeriod, defaultHeartbeat)
	or(&s.CAConfig.NodeCertExpiry, defaultCertExpiry)
}

// checkSwarmSpec refuses a spec that cannot be served and names it.
func checkSwarmSpec(s *swarm.Spec) error {
	if s.Name != "" && s.Name != "default" {
		return api.Errorf(api.Invalid, `swarm spec must be named "default"`)
	}
	s.Name = "default"
	authority := s.CAConfig
	switch {
	case authority.NodeCertExpiry != 0 && authority.NodeCertExpiry < minCertExpiry:
		return api.Errorf(api.Invalid, "minimum certificate expiry time is: %s", minCertExpiry)
	case s.Dispatcher.HeartbeatPeriod < 0:
		return api.Errorf(api.Invalid, "heartbeat time period cannot be a negative duration")
	case s.EncryptionConfig.AutoLockManagers:
		return api.Errorf(api.Unimplemented, "locking managers (autolock) is not supported by this version")
	case len(authority.ExternalCAs) > 0:
		return api.Errorf(api.Unimplemented, "external certificate authorities are not supported by this version")
	case authority.SigningCACert != "" || authority.SigningCAKey != "":
		return api.Errorf(api.Unimplemented, "bringing a certificate authority is not supported by this version")
	}
	return nil
}

func or[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func orNew[T any](field **T, value *T) {
	if *field == nil {
		*field = value
	}
}

type rotation struct{ worker, manager, unlockKey bool }

func readRotation(r *http.Request) (rot rotation, err error) {
	if rot.worker, err = wire.StrictBool(r, "rotateWorkerToken"); err != nil {
		return rot, err
	}
	if rot.manager, err = wire.StrictBool(r, "rotateManagerToken"); err != nil {
		return rot, err
	}
	rot.unlockKey, err = wire.StrictBool(r, "rotateManagerUnlockKey")
	return rot, err
}

func (a *API) updateSwarm(_ http.ResponseWriter, r *http.Request, _ map[string]string) error {
	var spec swarm.Spec
	if err := wire.ReadJSON(r, &spec); err != nil {
		return err
	}
	version, err := wire.ObjectVersion(r, "swarm")
	if err != nil {
		return err
	}
	rot, err := readRotation(r)
	if err != nil {
		return err
	}
	if err := checkSwarmSpec(&spec); err != nil {
		return err
	}
	insertSwarmDefaults(&spec)
	return a.change(r.Context(), func(v *store.View) ([]api.Op, error) {
		c, err := updatedCluster(v, version, spec, rot)
		if err != nil {
			return nil, err
		}
		return []api.Op{api.Update(c)}, nil
	})
}

// updatedCluster is the stored cluster with the user's spec and new tokens.
func updatedCluster(v *store.View, version uint64, spec swarm.Spec, rot rotation) (*api.Cluster, error) {
	old := v.Cluster()
	if old == nil {
		return nil, api.Errorf(api.Unavailable, textStarting)
	}
	if err := checkRead(version, old.Version, old.SpecVersion); err != nil {
		return nil, err
	}
	if spec.CAConfig.ForceRotate != old.Spec.CAConfig.ForceRotate {
		return nil, api.Errorf(api.Unimplemented, "rotating the certificate authority is not supported by this version")
	}
	c := old.Copy()
	c.Spec = spec
	for _, t := range []struct {
		wanted bool
		token  *string
	}{{rot.worker, &c.JoinTokens.Worker}, {rot.manager, &c.JoinTokens.Manager}} {
		if !t.wanted {
			continue
		}
		token, err := newJoinToken(c.CACert)
		if err != nil {
			return nil, err
		}
		*t.token = token
	}
	return c, nil
}

// newJoinToken mints a token that pins the PEM root certificate.
func newJoinToken(rootPEM []byte) (string, error) {
	block, _ := pem.Decode(rootPEM)
	if block == nil {
		return "", api.Errorf(api.Internal, "mint a join token: the cluster has no root certificate")
	}
	root, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "", api.Errorf(api.Internal, "mint a join token: %w", err)
	}
	return ca.NewToken(root).Reveal(), nil
}
