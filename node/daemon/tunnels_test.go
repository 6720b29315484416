package daemon

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"shoal/control/api"
)

func TestTunnelKeysFollowTheEpochs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tunnel.json")
	keys, err := loadTunnels(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	follow := func(current, floor uint64, changes bool) {
		t.Helper()
		changed, err := keys.follow(api.KeyEpochs{Current: current, Floor: floor})
		if err != nil || changed != changes {
			t.Fatalf("epochs %d to %d: changed %t, %v", floor, current, changed, err)
		}
	}
	follow(0, 0, false)
	follow(7, 7, true)
	seven := keys.report(0).Key(7)
	follow(7, 7, false)
	follow(8, 7, true)
	told := keys.report(7)
	if string(told.Key(7)) != string(seven) || len(told.Key(8)) != 32 || string(told.Key(8)) == string(seven) || told.Settled != 7 {
		t.Errorf("while keys change the managers are told %+v", told)
	}
	if err := told.Check(); err != nil {
		t.Error(err)
	}
	if again, err := loadTunnels(path, nil); err != nil || string(again.report(0).Key(8)) != string(told.Key(8)) {
		t.Errorf("after a restart: %v", err)
	}
	follow(8, 8, true)
	if told := keys.report(8); told.Key(7) != nil || len(told.Keys) != 1 {
		t.Errorf("after the change: %+v", told)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v, %v", info.Mode(), err)
	}
	private := keys.plan().Own[0].Private
	raw, _ := os.ReadFile(path)
	if strings.Contains(fmt.Sprintf("%v %+v %s %x %q", keys.plan(), keys.own, private, private, private), string(private.Reveal())) || len(raw) == 0 {
		t.Error("a private key is printed")
	}
}

func TestTunnelsOfAKernelThatCannot(t *testing.T) {
	keys, err := loadTunnels(filepath.Join(t.TempDir(), "tunnel.json"), errors.New("no WireGuard"))
	if err != nil {
		t.Fatal(err)
	}
	if changed, err := keys.follow(api.KeyEpochs{Current: 1, Floor: 1}); changed || err != nil {
		t.Errorf("changed %t, %v", changed, err)
	}
	if keys.plan().Missing != "no WireGuard" || keys.report(0).Keys != nil {
		t.Errorf("plans with %+v", keys.plan())
	}
}

func TestUnreadableTunnelKeysAreAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tunnel.json")
	for _, text := range []string{"", "{", `[{"Epoch":1,"Private":"c2hvcnQ="}]`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := loadTunnels(path, nil); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
