package fabric

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"shoal/overlay/endpoint"
)

func TestEndpointsSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	other, table := endpoint.New("b", 1), endpoint.New("a", 1)
	r := other.Set("t1", endpoint.Value{ServiceID: "web"})
	table.Merge([]endpoint.Record{r})
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // what is known at the end is written
	Memorize(ctx, dir, table, func(err error) { t.Error(err) })

	next := endpoint.New("a", 2)
	next.Hold()
	if err := Remember(dir, next); err != nil {
		t.Fatal(err)
	}
	if _, known := next.View().Record("b", "t1"); !known {
		t.Error("the other node's task is forgotten")
	}
	if err := os.WriteFile(filepath.Join(dir, memoryFile), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Remember(dir, endpoint.New("a", 3)); err == nil {
		t.Error("a damaged file was believed")
	}
	if err := Remember(t.TempDir(), endpoint.New("a", 3)); err != nil {
		t.Errorf("a first start: %v", err)
	}
}
