package fsm

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/moby/moby/api/types/swarm"
	"pgregory.net/rapid"

	"shoal/control/api"
	"shoal/control/store"
)

var day = time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("east", 3600))

func service(i int) *api.Service {
	s := &api.Service{}
	s.ID, s.Spec.Name = fmt.Sprintf("s%d", i), fmt.Sprintf("web%d", i)
	s.Spec.Labels = map[string]string{"a": "b"}
	return s
}

func entry(t interface{ Fatal(...any) }, index uint64, ops ...api.Op) *raft.Log {
	raw, err := Encode(Command{Now: day, Ops: ops})
	if err != nil {
		t.Fatal(err)
	}
	return &raft.Log{Index: index, Data: raw}
}

func TestApplyAnswersWithTheRefusal(t *testing.T) {
	s := store.New()
	f := New(s)
	if got := f.Apply(entry(t, 3, api.Create(service(1)))); got != nil {
		t.Fatalf("got %v", got)
	}
	got, _ := f.Apply(entry(t, 4, api.Create(service(1)))).(error)
	if api.KindOf(got) != api.Conflict {
		t.Errorf("got %v", got)
	}
	if v := s.View(); v.Index() != 4 || v.Service("s1").Version.Index != 3 || !v.Service("s1").CreatedAt.Equal(day) {
		t.Errorf("at %d: %+v", v.Index(), v.Service("s1"))
	}
}

func TestApplyStopsAtWhatItCannotRead(t *testing.T) {
	defer func() {
		if said := fmt.Sprint(recover()); !strings.Contains(said, "log entry 9") {
			t.Errorf("it said %s", said)
		}
	}()
	New(store.New()).Apply(&raft.Log{Index: 9, Data: []byte{77, '{', '}'}})
}

func TestEncodeRefuses(t *testing.T) {
	for _, op := range []api.Op{{Action: "shrug", Object: service(1)}, {Action: api.ActionCreate}} {
		if _, err := Encode(Command{Ops: []api.Op{op}}); api.KindOf(err) != api.Invalid {
			t.Errorf("%+v: %v", op, err)
		}
	}
	big := service(1)
	big.Spec.Labels["big"] = strings.Repeat("x", MaxCommandBytes)
	if _, err := Encode(Command{Ops: []api.Op{api.Create(big)}}); api.KindOf(err) != api.Invalid {
		t.Errorf("16 MiB: %v", err)
	}
}

// sink is a raft.SnapshotSink in memory.
type sink struct{ bytes.Buffer }

func (*sink) ID() string    { return "test" }
func (*sink) Close() error  { return nil }
func (*sink) Cancel() error { return nil }

// TestEqualLogsGiveEqualState runs two machines over one log; one of them is
// replaced by its own snapshot in the middle.
func TestEqualLogsGiveEqualState(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stores := []*store.Store{store.New(), store.New()}
		steady, restored := New(stores[0]), New(stores[1])
		for index := uint64(1); index < 20; index++ {
			log := entry(t, index, rapid.SliceOfN(rapid.Custom(drawOp), 1, 3).Draw(t, "ops")...)
			a, b := steady.Apply(log), restored.Apply(log)
			if fmt.Sprint(a) != fmt.Sprint(b) {
				t.Fatalf("one says %v, the other %v", a, b)
			}
			if rapid.IntRange(0, 5).Draw(t, "snapshot") == 0 {
				stores[1] = store.New()
				restored = through(t, restored, stores[1])
			}
		}
		a, errA := stores[0].View().Digest()
		b, errB := stores[1].View().Digest()
		if errA != nil || errB != nil || a != b {
			t.Fatalf("the states differ (%v, %v)", errA, errB)
		}
	})
}

func through(t *rapid.T, f *FSM, to *store.Store) *FSM {
	snap, err := f.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var s sink
	if err := snap.Persist(&s); err != nil {
		t.Fatal(err)
	}
	next := New(to)
	if err := next.Restore(io.NopCloser(&s)); err != nil {
		t.Fatal(err)
	}
	return next
}

func drawOp(t *rapid.T) api.Op {
	s := service(rapid.IntRange(0, 4).Draw(t, "id"))
	if rapid.Bool().Draw(t, "bare") {
		s.Spec.Labels = map[string]string{}
		s.Spec.TaskTemplate.ContainerSpec = &swarm.ContainerSpec{Env: []string{}}
	}
	var o api.Object = s
	if rapid.Bool().Draw(t, "node") {
		n := &api.Node{}
		n.ID, n.DownSince = s.ID, day
		n.Description.Engine.Labels = map[string]string{}
		n.Description.TLSInfo.CertIssuerSubject = []byte{}
		o = n
	}
	actions := []api.Action{api.ActionCreate, api.ActionUpdate, api.ActionDelete, api.ActionStatus}
	return api.Op{Action: rapid.SampledFrom(actions).Draw(t, "action"), Object: o}
}

func FuzzDecode(f *testing.F) {
	f.Add(entry(f, 1, api.Create(service(1)), api.Delete(&api.Task{})).Data)
	f.Add([]byte("\x01{\"Ops\":[{\"Action\":\"status\",\"Kind\":\"node\",\"Object\":null}]}"))
	f.Add([]byte("\x02{}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := Decode(raw)
		if err != nil {
			return
		}
		again, err := Encode(c)
		if err != nil {
			t.Fatalf("decoded but not encoded: %v", err)
		}
		if _, err := Decode(again); err != nil {
			t.Fatalf("decoded once: %v", err)
		}
		// Whatever was decoded, the store refuses it or takes it.
		New(store.New()).Apply(&raft.Log{Index: 1, Data: raw})
	})
}
