package join

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/ca"
	"shoal/control/rpc"
)

// Request says how a machine wants to join.
type Request struct {
	// Remotes are host:port of managers' control listeners, at least one.
	Remotes []string
	// Token is the join token's text.
	Token string
	// Hostname is what the node is called until it describes itself.
	Hostname string
	// DataPathAddr is where the node's tasks' traffic will come to.
	DataPathAddr netip.Addr
	// Availability of the new node, "" for active.
	Availability swarm.NodeAvailability
	// Dial opens connections; nil for the ordinary way.
	Dial rpc.DialFunc
}

// Join makes this machine a node and returns its credentials, which the caller
// saves. It tries the remotes in turn, following them to the leader, for at most
// twenty seconds. A token that is malformed, or that the cluster does not know,
// is `invalid join token`; managers that cannot be reached are api.Unavailable.
func Join(ctx context.Context, req Request) (*ca.Credentials, error) {
	token, err := ca.ParseToken(req.Token)
	if err != nil {
		return nil, err
	}
	if len(req.Remotes) == 0 {
		return nil, api.Errorf(api.Invalid, "at least one RemoteAddr is required to join")
	}
	csr, key, err := ca.NewRequest()
	if err != nil {
		return nil, err
	}
	client := rpc.NewJoinClient(token, req.Dial)
	defer client.Close()
	in := joinRequest{Token: req.Token, CSR: string(csr), Hostname: req.Hostname, DataPathAddr: req.DataPathAddr, Availability: req.Availability}
	out := issued{}
	if err := askLeader(ctx, client, req.Remotes, joinPath, in, &out); err != nil {
		return nil, err
	}
	creds, err := ca.NewCredentials(key, []byte(out.Cert), []byte(out.Root))
	if err != nil {
		return nil, err
	}
	if !token.Pins(creds.Root) {
		return nil, ca.ErrPin
	}
	return creds, nil
}

// Renew gets a new key and certificate for the node whose certificate client
// shows, with the role that the cluster gives it now. The root stays what the
// node trusts already: root is PEM.
func Renew(ctx context.Context, client *rpc.Client, managers []string, root []byte) (*ca.Credentials, error) {
	csr, key, err := ca.NewRequest()
	if err != nil {
		return nil, err
	}
	out := issued{}
	if err := askLeader(ctx, client, managers, renewPath, renewRequest{string(csr)}, &out); err != nil {
		return nil, err
	}
	return ca.NewCredentials(key, []byte(out.Cert), root)
}

// BecomeVoter asks the leader to make this manager, reachable at addr, a voting
// member of Raft.
func BecomeVoter(ctx context.Context, client *rpc.Client, managers []string, addr string) error {
	return askLeader(ctx, client, managers, voterPath, voterRequest{addr}, nil)
}

// askLeader calls the leader, wherever it is, until it answers or time is up.
// Only api.Unavailable is worth another try, and a few times api.Forbidden: a
// follower may hear of a new node a moment after the leader admitted it.
func askLeader(ctx context.Context, client *rpc.Client, managers []string, path string, in, out any) error {
	if len(managers) == 0 {
		return api.Errorf(api.Unavailable, "no manager to call %s at is known", path)
	}
	limited, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	hint, forbidden := "", 0
	for turn := 0; ; turn++ {
		addr := managers[turn%len(managers)]
		if hint != "" {
			addr = hint
		}
		err := callOnce(limited, client, addr, path, in, out)
		if api.KindOf(err) == api.Forbidden {
			forbidden++
		}
		if final(err, forbidden) {
			return err
		}
		var elsewhere *rpc.NotLeaderError
		followed := hint != ""
		hint = ""
		if errors.As(err, &elsewhere) {
			hint = elsewhere.Leader
		}
		if hint != "" && !followed {
			continue // a second pointer in a row waits
		}
		select {
		case <-limited.Done():
			return tooLate(ctx, path, err)
		case <-time.After(retryPause):
		}
	}
}

func tooLate(ctx context.Context, path string, last error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return api.Errorf(api.Unavailable, "no leader answered %s within %s: %w", path, joinTimeout, last)
}

func callOnce(ctx context.Context, client *rpc.Client, addr, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return client.Call(ctx, addr, http.MethodPost, path, in, out)
}

// final says whether an answer ends the search; forbidden counts the refusals so far.
func final(err error, forbidden int) bool {
	if err == nil || errors.Is(err, ca.ErrPin) {
		return true
	}
	switch api.KindOf(err) {
	case api.Unavailable:
		return false
	case api.Forbidden:
		return forbidden >= forbiddenTries
	}
	return true
}

func checkHostPort(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err == nil && host == "" {
		err = errors.New("no host")
	}
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return api.Errorf(api.Invalid, "address %q of a manager: %w", addr, err)
	}
	return nil
}
