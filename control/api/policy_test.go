package api

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestPolicy(t *testing.T) {
	p, err := ParsePolicy(map[string]string{
		"tier": "front", "shoals.foo": "1", LabelAlgorithm: "mh", LabelWeight: "h1=3, h2=1", LabelSticky: "1500ms", LabelPrefer: "local",
		LabelSource: "nat", LabelReady: "started", LabelReadyTimeout: "30s",
		LabelPublish: "10.0.0.5, eth1", LabelPublish + ".8080": "localhost", LabelPublish + ".53/udp": "[fd00::5]",
	})
	if err != nil {
		t.Fatal(err)
	}
	at := func(text string) []Place { return []Place{{Addr: netip.MustParseAddr(text)}} }
	if p.Algorithm != "mh" || p.Weights["h1"] != 3 || p.Sticky != 2*time.Second || !p.PreferLocal || !p.HideClients ||
		!p.ReadyWhenStarted || p.ReadyTimeout != 30*time.Second {
		t.Errorf("read %+v", p)
	}
	for _, row := range []struct {
		port  uint32
		proto string
		want  []Place
	}{
		{443, "tcp", []Place{{Addr: netip.MustParseAddr("10.0.0.5")}, {Link: "eth1"}}},
		{8080, "tcp", at("127.0.0.1")}, {8080, "udp", at("127.0.0.1")}, {53, "udp", at("fd00::5")},
		{53, "tcp", []Place{{Addr: netip.MustParseAddr("10.0.0.5")}, {Link: "eth1"}}},
	} {
		if got := p.PublishedAt(row.port, row.proto); !reflect.DeepEqual(got, row.want) {
			t.Errorf("%d/%s answers at %v, want %v", row.port, row.proto, got, row.want)
		}
	}
	if got := p.PublishLabels(func(n uint32, _ string) bool { return n == 8080 }); !reflect.DeepEqual(got, []string{LabelPublish + ".53/udp"}) {
		t.Errorf("strange are %v", got)
	}
	p, err = ParsePolicy(nil)
	if err != nil || p.Algorithm != "rr" || p.Sticky != 0 || p.ReadyTimeout != DefaultReadyTimeout || p.PublishedAt(80, "tcp") != nil {
		t.Errorf("without labels %+v, %v", p, err)
	}
}

func TestPolicyRefusals(t *testing.T) {
	for label, values := range map[string]map[string]string{
		LabelAlgorithm:            {"best": "choose one of rr, wrr, lc, wlc, sh, mh", "": "choose one of"},
		LabelWeight:               {"3": "NODE=WEIGHT", "h1=0": "from 1 to 65535", "h1=x": "from 1", "h1=1,h1=2": "two weights", "": "NODE=WEIGHT"},
		LabelSticky:               {"0": "from 1s to 168h", "10ms": "from 1s", "1y": "not a duration", "200h": "to 168h"},
		LabelPrefer:               {"remote": "choose local"},
		LabelSource:               {"task": "choose client or nat"},
		LabelReady:                {"healthy": "choose accepts or started"},
		LabelReadyTimeout:         {"2h": "to 1h", "forever": "not a duration"},
		LabelPublish:              {"10.0.0": "neither", "0.0.0.0": "leave the label out", "224.0.0.1": "not an address", "a b": "neither", "eth0,eth0": "twice", "": "neither", "::1": "127.0.0.1", "averylonglinkname": "neither"},
		LabelPublish + ".0":       {"eth0": "not a published port"},
		LabelPublish + ".80/icmp": {"eth0": "not a published port"},
		LabelPublish + "ess":      {"eth0": "no such label"},
		"shoal.lb.algoritm":       {"rr": "no such label"},
		"shoal.readyness":         {"x": "no such label"},
		"shoal.foo":               {"1": "no such label"},
	} {
		for value, want := range values {
			p, err := ParsePolicy(map[string]string{label: value})
			if err == nil || KindOf(err) != Invalid || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), label) {
				t.Errorf("%s=%q: %v, want %q", label, value, err, want)
			}
			if p.Algorithm != "rr" || p.Sticky != 0 || p.PreferLocal || p.ReadyTimeout != DefaultReadyTimeout {
				t.Errorf("%s=%q leaves %+v", label, value, p)
			}
		}
	}
	if err := CheckNodeLabels(map[string]string{LabelWeight: "many"}); err == nil || KindOf(err) != Invalid {
		t.Errorf("a node's weight: %v", err)
	}
	if err := CheckNodeLabels(map[string]string{LabelWeight: "7", "tier": "front"}); err != nil {
		t.Error(err)
	}
}

func FuzzPolicy(f *testing.F) {
	f.Add(LabelPublish+".80/tcp", "10.0.0.1,eth0")
	f.Add(LabelWeight, "h1=3")
	f.Fuzz(func(t *testing.T, label, value string) {
		p, err := ParsePolicy(map[string]string{label: value})
		if err != nil && KindOf(err) != Invalid || p.Sticky < 0 || p.ReadyTimeout <= 0 {
			t.Errorf("%q=%q: %+v %v", label, value, p, err)
		}
	})
}
