package gossip

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"shoal/overlay/endpoint"
)

func TestDeltasReachEveryNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 5)
	c.formed()
	r := c.nodes[3].write("task1", "web")
	took := eventually(t, 5*time.Second, "record everywhere", func() bool {
		for _, n := range c.nodes {
			if _, ok := n.table.View().Record(r.Owner, r.Key); !ok {
				return false
			}
		}
		return true
	})
	t.Logf("one record on 5 nodes after %s", took)
	for i, n := range c.nodes {
		for k := range 40 {
			n.write(fmt.Sprintf("t%d", k), fmt.Sprintf("s%d", i))
		}
	}
	took = eventually(t, 10*time.Second, "tables agree", func() bool { return agree(c.nodes) && len(c.nodes[0].table.View().All()) == 201 })
	t.Logf("200 records on 5 nodes after %s", took)
}

func TestLossIsRepaired(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 4)
	c.formed()
	c.fabric.setLoss(0.3)
	for round := range 20 {
		for _, n := range c.nodes {
			n.write(fmt.Sprintf("t%d", round%7), fmt.Sprintf("s%d", round))
		}
		c.nodes[0].table.Remove("t3")
	}
	eventually(t, 10*time.Second, "tables agree under loss", func() bool { return agree(c.nodes) })
}

func TestPartitionHeals(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 4)
	c.formed()
	a, b := c.nodes[:2], c.nodes[2:]
	c.fabric.partition(1, b[0].ip, b[1].ip)
	took := eventually(t, 15*time.Second, "both sides see the other failed", func() bool {
		return a[0].sees("node2") == Failed && a[1].sees("node3") == Failed && b[0].sees("node0") == Failed && b[1].sees("node1") == Failed
	})
	t.Logf("other side known to be away after %s", took)
	a[0].write("a", "one")
	b[0].write("b", "two")
	eventually(t, 5*time.Second, "sides agree among themselves", func() bool { return agree(a) && agree(b) })
	eventually(t, 5*time.Second, "owners away are down", func() bool { return b[0].table.View().Down("node0") && a[0].table.View().Down("node2") })
	c.fabric.partition(0, b[0].ip, b[1].ip)
	contact := eventually(t, 10*time.Second, "contact", func() bool { return a[0].sees("node2") == Alive || b[0].sees("node0") == Alive })
	took = eventually(t, 5*time.Second, "tables agree after the partition", func() bool { return agree(c.nodes) })
	t.Logf("contact %s after the partition ended, tables agree %s later", contact, took)
	if took > 2*time.Second {
		t.Errorf("tables agree %s after contact, want at most 2s", took)
	}
	eventually(t, 5*time.Second, "nobody is down", func() bool {
		return !slices.ContainsFunc(c.nodes, func(n *node) bool { return n.table.View().Down("node0") || n.table.View().Down("node2") })
	})
}

func TestCrashIsNoticedAndRestartVoidsTheOldRecords(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.formed()
	victim := c.nodes[2]
	victim.write("old", "web")
	victim.write("stays", "web")
	eventually(t, 5*time.Second, "tables agree", func() bool { return agree(c.nodes) })
	port := victim.Addr().Port()
	must(t, victim.Shutdown())
	took := eventually(t, 10*time.Second, "crash is noticed", func() bool {
		return c.nodes[0].table.View().Down("node2") && c.nodes[1].table.View().Down("node2")
	})
	t.Logf("crash known after %s", took)

	cfg := c.config("node2", victim.ip, 2, port)
	cfg.Table.Hold()
	again := c.start(cfg)
	again.table.Set("stays", endpoint.Value{ServiceName: "web", VTEP: victim.ip})
	select {
	case <-again.Compared():
		if got := len(again.table.View().Owners()); got < 3 {
			t.Errorf("after the comparison %d owners are known", got)
		}
	case <-time.After(10 * time.Second):
		t.Error("the table is not compared with any other")
	}
	eventually(t, 10*time.Second, "back among the members", func() bool { return c.nodes[0].sees("node2") == Alive })
	eventually(t, 10*time.Second, "spoken to again", func() bool { _, ok := c.nodes[0].others()["node2"]; return ok })
	c.nodes[0].write("meanwhile", "web")
	eventually(t, 5*time.Second, "some time has gone by", func() bool { _, ok := c.nodes[1].table.View().Record("node0", "meanwhile"); return ok })
	v := c.nodes[0].table.View()
	if _, ok := v.Record("node2", "old"); !ok || !v.Down("node2") {
		t.Errorf("before the new records are open the old ones are there: %v, and rest: %v", ok, v.Down("node2"))
	}
	again.table.Open()
	eventually(t, 5*time.Second, "new records everywhere, old ones nowhere", func() bool {
		for _, n := range c.nodes[:2] {
			v := n.table.View()
			_, old := v.Record("node2", "old")
			stays, ok := v.Record("node2", "stays")
			if old || !ok || stays.Epoch != 2 || v.Down("node2") {
				return false
			}
		}
		return true
	})
}

func TestLeave(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.formed()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	must(t, c.nodes[2].Leave(ctx))
	must(t, c.nodes[2].Shutdown())
	eventually(t, 5*time.Second, "left is seen as left", func() bool {
		return c.nodes[0].sees("node2") == Left && c.nodes[1].sees("node2") == Left
	})
	must(t, c.nodes[0].Forget(ctx, "node2"))
	eventually(t, 5*time.Second, "forgotten", func() bool { return !slices.Contains(c.nodes[0].table.Owners(), "node2") })
}

func TestConfirm(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.formed()
	r := c.nodes[0].write("t", "web")
	ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
	defer cancel()
	missing, err := c.nodes[0].Confirm(ctx, r)
	if err == nil || !slices.Equal(missing, []string{"node0", "node1", "node2"}) {
		t.Fatalf("Confirm before anything is applied: missing %v, err %v", missing, err)
	}
	for _, n := range c.nodes[:2] {
		n.apply(t, r)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 600*time.Millisecond)
	defer cancel()
	missing, err = c.nodes[0].Confirm(ctx, r)
	if err == nil || !slices.Equal(missing, []string{"node2"}) {
		t.Fatalf("Confirm with one node behind: missing %v, err %v", missing, err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	go c.nodes[2].apply(t, r)
	begin := time.Now()
	if missing, err = c.nodes[0].Confirm(ctx, r); err != nil {
		t.Fatalf("Confirm: missing %v, err %v", missing, err)
	}
	t.Logf("confirmed after %s", time.Since(begin))
}

// apply waits for a record and then reports it applied, like a daemon.
func (n *node) apply(t *testing.T, r endpoint.Record) {
	eventually(t, 5*time.Second, "record arrives", func() bool { return !n.table.View().At(r.Owner).Before(r.At()) })
	n.SetApplied(n.table.View())
}

func TestKeyRotation(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.formed()
	for _, keys := range [][][]byte{{testKeyA, testKeyB}, {testKeyB, testKeyA}, {testKeyB}} {
		for i, n := range c.nodes {
			must(t, n.SetKeys(keys))
			n.write("t", fmt.Sprintf("s%d-%d", len(keys), i))
		}
		eventually(t, 5*time.Second, "tables agree during the rotation", func() bool { return agree(c.nodes) })
	}
	if got := c.nodes[0].keyring.GetKeys(); len(got) != 1 || !slices.Equal(got[0], testKeyB) {
		t.Errorf("keys after the rotation: %x", got)
	}
	for _, n := range c.nodes {
		for _, m := range n.Members() {
			if m.State != Alive {
				t.Errorf("%s sees %s as %s after the rotation", n.cfg.NodeID, m.NodeID, m.State)
			}
		}
	}
}

func TestStrangersAreRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2)
	c.formed()
	c.nodes[0].write("t", "web")

	wrongKey := c.config("wrongkey", c.nodes[1].ip.Next(), 1, 0)
	wrongKey.Keys = [][]byte{testKeyB}
	other := &cluster{t: t, ca: newTestCA(t), fabric: c.fabric}
	wrongCA := other.config("wrongca", c.nodes[1].ip.Next().Next(), 1, 0)
	for _, cfg := range []Config{wrongKey, wrongCA} {
		g, err := Start(cfg)
		must(t, err)
		g.Join([]string{c.nodes[0].Addr().String()})
		eventually(t, 10*time.Second, "joins fail", func() bool { return g.Stats().JoinsFailed >= 2 })
		if len(g.Members()) != 1 || c.nodes[0].sees(cfg.NodeID) != "" {
			t.Errorf("%s got in: %v", cfg.NodeID, g.Members())
		}
		if n := len(cfg.Table.View().All()); n != 0 {
			t.Errorf("%s got %d records", cfg.NodeID, n)
		}
		must(t, g.Shutdown())
	}
}

func TestLargeRecordTravelsByHint(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3)
	c.formed()
	var v endpoint.Value
	for i := range 40 {
		v.Attachments = append(v.Attachments, endpoint.Attachment{NetworkID: fmt.Sprintf("network-%020d", i), MAC: "02:42:0a:00:00:05"})
	}
	r := c.nodes[1].table.Set("big", v)
	c.nodes[1].Publish([]endpoint.Record{r})
	took := eventually(t, 2*time.Second, "large record everywhere", func() bool { return agree(c.nodes) && len(c.nodes[0].table.View().All()) == 1 })
	t.Logf("large record on 3 nodes after %s", took)
}

func TestConfigIsChecked(t *testing.T) {
	c := &cluster{t: t, ca: newTestCA(t), fabric: newFabric()}
	good := func() Config { return c.config("n", newFabricAddr(), 1, 0) }
	for name, spoil := range map[string]func(*Config){
		"no id":        func(c *Config) { c.NodeID = "" },
		"no table":     func(c *Config) { c.Table = nil },
		"other table":  func(c *Config) { c.Table = endpoint.New("m", 1) },
		"no tls":       func(c *Config) { c.ServerTLS = nil },
		"no key":       func(c *Config) { c.Keys = nil },
		"short key":    func(c *Config) { c.Keys = [][]byte{{1}} },
		"any address":  func(c *Config) { c.Bind = anyAddr },
		"taken socket": func(c *Config) { c.Listen = refuseListen },
	} {
		cfg := good()
		spoil(&cfg)
		if g, err := Start(cfg); err == nil {
			t.Errorf("%s: started", name)
			must(t, g.Shutdown())
		}
	}
}
