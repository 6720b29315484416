package netview

import (
	"slices"
	"testing"
	"time"

	"shoal/control/api"
)

func TestGossipTables(t *testing.T) {
	since := time.Date(2026, 11, 22, 2, 10, 4, 0, time.UTC)
	at := func(phase api.GossipPhase) api.GossipChange {
		return api.GossipChange{Step: 8, Phase: phase, Since: since}
	}
	none := func() []string { return nil }
	two := func() []string { return []string{"h2", "h3"} }
	for _, row := range []struct {
		change  api.GossipChange
		waits   func() []string
		phase   string
		waiting []string
	}{
		{api.GossipChange{}, none, "", nil},
		{at(api.GossipSettled), none, "settled", []string{}},
		{at(api.GossipInstall), two, "install", []string{"h2", "h3"}},
		{at(api.GossipUse), none, "use", []string{}},
		{at(api.GossipUse), nil, "use", nil}, // on a worker
	} {
		s := sources()
		s.GossipChange, s.GossipWaits, s.GossipStep = row.change, row.waits, func() uint64 { return 7 }
		got := s.GossipTables()
		if got.Health != 3 || got.Keys.Phase != row.phase || got.Keys.Step != row.change.Step || !got.Keys.Since.Equal(row.change.Since) {
			t.Errorf("%+v: %+v", row.change, got.Keys)
		}
		if !slices.Equal(got.Keys.Waiting, row.waiting) || (got.Keys.Waiting == nil) != (row.waiting == nil) || row.phase != "" && got.Keys.Made != 7 {
			t.Errorf("%+v: waits for %#v, made %d", row.change, got.Keys.Waiting, got.Keys.Made)
		}
	}
}
