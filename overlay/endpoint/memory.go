package endpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// memoryHeader begins what Remember reads. Its number changes with the encoding of
// records.
const memoryHeader = "shoal endpoints 2\n"

var errMemory = errors.New("not a table's memory, or damaged")

// Memory encodes what the table shows, for the same node's next start: in what it
// cannot know yet, a daemon that starts goes on with what was so before.
func (t *Table) Memory() []byte {
	own := t.View().Owner(t.self)
	t.mu.Lock()
	defer t.mu.Unlock()
	var body []byte
	for _, id := range slices.Sorted(maps.Keys(t.owners)) {
		if o := t.owners[id]; id != t.self && o.done > 0 {
			body = AppendSet(append(body, 1), o.set(id, 0))
		}
	}
	body = AppendRecords(append(body, 0), own)
	return append(binary.BigEndian.AppendUint64([]byte(memoryHeader), hashBytes(body)), body...)
}

// Remember takes in what an earlier table of the node wrote, before anything
// else. Other owners' records count like those of any other node that was away for
// a while. The own ones are shown until Open, as far as they are not written anew
// or removed: the table must be held. An error leaves the table as it was.
func (t *Table) Remember(memory []byte) error {
	sets, own, err := decodeMemory(memory)
	if err != nil {
		return err
	}
	t.MergeSets(sets)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.before = map[string]entry{}
	for _, r := range own {
		if r.Owner == t.self && !r.Deleted && r.valid() {
			t.before[r.Key] = newEntry(r)
		}
	}
	t.owners[t.self].view = nil
	t.bump()
	return nil
}

func decodeMemory(b []byte) (sets []Set, own []Record, err error) {
	body, ok := bytes.CutPrefix(b, []byte(memoryHeader))
	if !ok || len(body) < 8 || binary.BigEndian.Uint64(body) != hashBytes(body[8:]) {
		return nil, nil, errMemory
	}
	for body = body[8:]; len(body) > 0 && body[0] == 1; {
		var s Set
		if s, body, err = DecodeSet(body[1:]); err != nil {
			return nil, nil, fmt.Errorf("%w: %w", errMemory, err)
		}
		sets = append(sets, s)
	}
	if len(body) == 0 {
		return nil, nil, errMemory
	}
	if own, err = DecodeRecords(body[1:]); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errMemory, err)
	}
	return sets, own, nil
}

// withBefore adds to the own records those of the earlier run that are neither
// written anew nor removed yet.
func (t *Table) withBefore(live map[string]entry) map[string]entry {
	if len(t.before) == 0 {
		return live
	}
	all := maps.Clone(t.before)
	maps.Copy(all, live)
	return all
}

// forgetBefore drops a record of the earlier run and reports whether there was one.
func (t *Table) forgetBefore(key string) bool {
	_, known := t.before[key]
	if known {
		delete(t.before, key)
		t.owners[t.self].view = nil
	}
	return known
}
