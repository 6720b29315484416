package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/bench/lab"
	"shoal/bench/load"
)

// controlPort is where managers listen.
const controlPort = "2377"

// formCluster is step 1.
func (s *stage) formCluster(ctx context.Context) error {
	first := s.hosts[0]
	began := time.Now()
	if _, err := s.netctl(ctx, first, "swarm", "init", "--advertise-addr", first.Address.String()); err != nil {
		return err
	}
	token, err := s.netctl(ctx, first, "swarm", "join-token", "-q", "manager")
	if err != nil {
		return err
	}
	for _, h := range s.hosts[1:] {
		_, err := s.netctl(ctx, h, "swarm", "join", "--advertise-addr", h.Address.String(),
			"--token", strings.TrimSpace(token), net.JoinHostPort(first.Address.String(), controlPort))
		if err != nil {
			return err
		}
	}
	ready, err := await(ctx, "three ready managers", func() error { return s.threeManagers(ctx) })
	if err != nil {
		return err
	}
	if _, err := s.netctl(ctx, first, "node", "ls"); err != nil {
		return err
	}
	s.claim("three hosts are one cluster", true, "init to all ready: %s", load.Round(ready.Sub(began)))
	s.tryStranger(ctx, first)
	return s.loadImages(ctx)
}

// threeManagers complains unless every host is a ready, reachable manager in
// the eyes of every other.
func (s *stage) threeManagers(ctx context.Context) error {
	if err := s.lab.Ready(ctx); err != nil {
		return err
	}
	nodes, err := s.nodes(ctx)
	if err != nil {
		return err
	}
	for _, h := range s.hosts {
		n := nodes[h.Name]
		if n.ManagerStatus == nil || n.ManagerStatus.Reachability != swarm.ReachabilityReachable {
			return fmt.Errorf("%s is no reachable manager", h.Name)
		}
	}
	return nil
}

// tryStranger knocks at the control port without a certificate, and with an old
// TLS.
func (s *stage) tryStranger(ctx context.Context, h lab.Host) {
	s.note("a stranger without a certificate asks %s for the raft stream, then for TLS 1.2", h.Name)
	noCertificate := knock(ctx, h, tls.VersionTLS13)
	oldVersion := knock(ctx, h, tls.VersionTLS12)
	s.claim("managers talk over mutual TLS 1.3 only", noCertificate != nil && oldVersion != nil,
		"without a certificate: %v; TLS 1.2: %v", noCertificate, oldVersion)
}

// knock opens the raft stream without a certificate, and returns how it was
// refused; nil when it was not.
func knock(ctx context.Context, h lab.Host, version uint16) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	// The stranger does not know the cluster's authority: it is the manager's
	// check that is looked at.
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"shoal-raft"}, MaxVersion: version}}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(h.Address.String(), controlPort))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(2 * time.Second)); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil // it is listened to
	case errors.Is(err, io.EOF):
		return errors.New("the connection is closed at once")
	}
	return err
}

func (s *stage) loadImages(ctx context.Context) error {
	for _, h := range s.hosts {
		for _, image := range s.images {
			if _, err := s.netctl(ctx, h, "image", "load", "-q", "-i", image); err != nil {
				return err
			}
		}
	}
	return nil
}
