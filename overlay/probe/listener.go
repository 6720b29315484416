package probe

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"shoal/overlay/netns"
)

// listener answers the questions of others.
type listener struct {
	id   netns.ID
	at   netip.AddrPort
	conn net.PacketConn
	done sync.WaitGroup
}

func newListener(ctx context.Context, namespace string, id netns.ID, at netip.AddrPort) (*listener, error) {
	l := &listener{id: id, at: at}
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error { return set(raw, true) }}
	err := netns.Do(namespace, func() (err error) {
		l.conn, err = c.ListenPacket(ctx, "udp4", at.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	l.done.Go(l.serve)
	return l, nil
}

func (l *listener) serve() {
	b := make([]byte, 1<<16)
	for {
		n, from, err := l.conn.ReadFrom(b)
		if err != nil && !refused(err) {
			return
		}
		if nonce, isAnswer, ok := parse(b[:n]); err == nil && ok && !isAnswer {
			l.conn.WriteTo(answer(nonce), from) // one that is lost is asked for again
		}
	}
}

func (l *listener) close() {
	l.conn.Close()
	l.done.Wait()
}
