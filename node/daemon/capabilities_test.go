package daemon

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"shoal/control/api"
	"shoal/dataplane/lb"
	"shoal/dataplane/lb/lbfake"
)

func TestCapabilities(t *testing.T) {
	balancer := lbfake.New()
	balancer.Unsupported = []lb.Algorithm{lb.LeastConn}
	c := newCapabilities(balancer)
	before := c.report()
	if !before.Known() || before.Balancer != "fake" || before.Kernel == "" {
		t.Errorf("found %+v", before)
	}
	if can, why := before.Balances("lc"); can || why == "" {
		t.Errorf("lc: %t, %q", can, why)
	}
	if can, _ := before.Balances("mh"); !can {
		t.Error("mh is missing")
	}
	if can, _ := (api.Capabilities{}).Balances("lc"); !can {
		t.Error("a node that has not told is refused")
	}
	c.find("b", []string{"two"})
	c.find("a", []string{"one", "three"})
	c.lack("encryption", errors.New("no WireGuard"))
	if got := c.report(); !slices.Equal(got.Messages, []string{"one", "three", "two"}) || got.Missing["encryption"] == "" {
		t.Errorf("after two tests: %+v", got)
	}
	if before.Missing["encryption"] != "" {
		t.Error("an earlier report changed")
	}
	c.find("a", nil)
	c.find("b", nil)
	if got := c.report(); !reflect.DeepEqual(got.Messages, before.Messages) {
		t.Errorf("messages that are no more: %q", got.Messages)
	}
}
