package ipvs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/moby/ipvs"

	"shoal/dataplane/lb"
	"shoal/dataplane/netfilter"
)

// sysctls of a namespace that balances: packets of IPVS are tracked (masquerading
// needs it), a connection that is begun anew may keep its server, and flows whose
// server is gone are judged anew by their next packet.
var sysctls = map[string]string{
	"net/ipv4/vs/conntrack":                 "1",
	"net/ipv4/vs/conn_reuse_mode":           "0",
	"net/ipv4/vs/expire_nodest_conn":        "1",
	"net/ipv4/vs/expire_quiescent_template": "1",
}

// timeouts let an idle connection live as long as connection tracking lets it:
// five days. IPVS's own default would cut it, in silence, after 15 minutes.
var timeouts = ipvs.Config{TimeoutTCP: 5 * 24 * time.Hour, TimeoutTCPFin: 2 * time.Minute, TimeoutUDP: 5 * time.Minute}

// apply makes the kernel equal to the canonical wish: what is added first, then
// the table that leads packets to it, then what goes.
func (k *kernel) apply(ctx context.Context, wish lb.Desired) (changed int, err error) {
	if err := k.prepare(wish); err != nil {
		return 0, err
	}
	st, err := k.read(ctx, wish)
	if err != nil {
		return 0, err
	}
	for _, v := range st.strays {
		lb.Note(ctx, fmt.Sprintf("remove ipvs service %v port %d mark %d, which is not ours", v.Address, v.Port, v.FWMark))
		if err := k.vs.DelService(v); err != nil {
			return changed, fmt.Errorf("remove an ipvs service that is not ours: %w", err)
		}
		changed++
	}
	want := wished(wish, st.fronts)
	ops := lb.Plan(wish, st.balance)
	lb.Note(ctx, ops...)
	late := len(ops)
	for i, op := range ops {
		if op.Kind == lb.RemoveBackend || op.Kind == lb.RemoveService {
			late = min(late, i)
		}
	}
	n, err := k.run(ctx, ops[:late], st.fronts, want)
	if changed += n; err != nil {
		return changed, err
	}
	if damaged := !st.sound && (st.exists || len(wish.Services) > 0); damaged || !want.equal(st.fronts) || !slices.Equal(wish.MasqueradeFrom, st.balance.MasqueradeFrom) {
		if damaged {
			lb.Note(ctx, "replace table "+Table+", which is not as it was written")
		}
		if err := k.writeTable(want, wish.MasqueradeFrom, st); err != nil {
			return changed, fmt.Errorf("mark packets: %w", err)
		}
		if len(ops) == 0 {
			changed++
		}
	}
	n, err = k.run(ctx, ops[late:], st.fronts, want)
	if changed += n; err != nil {
		return changed, err
	}
	return changed, k.forget(wish, ops)
}

// prepare sets what the namespace needs before its first packet is balanced.
func (k *kernel) prepare(wish lb.Desired) error {
	if len(wish.Services) == 0 {
		return nil
	}
	for key, value := range sysctls {
		if _, err := netfilter.Sysctl(k.namespace, key, value); err != nil {
			return err
		}
	}
	if err := k.setTimeouts(); err != nil {
		return err
	}
	for _, front := range wish.Forwarded() {
		if err := netfilter.Forward(k.namespace, netfilter.FamilyOf(front)); err != nil {
			return err
		}
	}
	return nil
}

func (k *kernel) setTimeouts() error {
	have, err := k.vs.GetConfig()
	if err != nil {
		return fmt.Errorf("read ipvs timeouts: %w", err)
	}
	if *have == timeouts {
		return nil
	}
	want := timeouts
	if err := k.vs.SetConfig(&want); err != nil {
		return fmt.Errorf("set ipvs timeouts: %w", err)
	}
	return nil
}

// run executes operations until one fails. Marks are those that services get,
// and for a service that goes those that it had.
func (k *kernel) run(ctx context.Context, ops []lb.Op, had, want fronts) (done int, err error) {
	for i, op := range ops {
		if err := ctx.Err(); err != nil {
			return i, err
		}
		mark, ok := want.marks[op.Service.Addr]
		if !ok {
			mark = had.marks[op.Service.Addr]
		}
		if err := k.do(op, virtual(op.Service, mark)); err != nil {
			return i, fmt.Errorf("%s: %w", op, err)
		}
	}
	return len(ops), nil
}

func (k *kernel) do(op lb.Op, v *ipvs.Service) error {
	switch op.Kind {
	case lb.SetMasquerade:
		return nil // a matter of the table
	case lb.AddService:
		return k.vs.NewService(v)
	case lb.SetService:
		return k.vs.UpdateService(v)
	case lb.RemoveService:
		return k.vs.DelService(v)
	case lb.AddBackend:
		return k.vs.NewDestination(v, destination(op.Backend))
	case lb.SetBackend:
		return k.vs.UpdateDestination(v, destination(op.Backend))
	case lb.RemoveBackend:
		return k.vs.DelDestination(v, destination(op.Backend))
	}
	return errors.New("unknown operation")
}

// forget cuts the flows that the changes made wrong. IPVS itself lets go of them
// at their next packet, but would drop that packet while it is still tracked.
func (k *kernel) forget(wish lb.Desired, ops []lb.Op) error {
	stale, changed := lb.Stale(wish, ops)
	if len(changed) == 0 {
		return nil
	}
	_, err := netfilter.Forget(k.namespace, func(flow netfilter.Flow) bool {
		return stale(lb.Flow{Protocol: protocolOf(uint16(flow.Protocol)), Dest: flow.Dest, Server: flow.Server})
	})
	return err
}
