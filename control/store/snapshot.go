package store

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"

	"github.com/hashicorp/go-memdb"

	"shoal/control/api"
)

// A snapshot is JSON, one value a line: a header, every object (kinds in the
// order of api.Kinds, ids ascending), a trailer with their number.
const snapshotFormat = 1

type header struct {
	Format int
	Index  uint64
}

// line is an object, or the trailer when Kind is empty.
type line struct {
	Kind    api.Kind        `json:",omitempty"`
	Object  json.RawMessage `json:",omitempty"`
	Objects *int            `json:",omitempty"`
}

// Save writes the view as a snapshot. Equal state gives equal bytes.
func (v *View) Save(w io.Writer) error {
	buffered := bufio.NewWriter(w)
	out := json.NewEncoder(buffered)
	if err := out.Encode(header{snapshotFormat, v.index}); err != nil {
		return fmt.Errorf("write snapshot header: %w", err)
	}
	count := 0
	for _, kind := range api.Kinds {
		for _, o := range all[api.Object](v, kind) {
			if err := saveObject(out, o); err != nil {
				return err
			}
			count++
		}
	}
	if err := out.Encode(line{Objects: &count}); err != nil {
		return fmt.Errorf("write snapshot trailer: %w", err)
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("write snapshot: %w", err)
	}
	return nil
}

func saveObject(out *json.Encoder, o api.Object) error {
	raw, err := json.Marshal(o)
	if err == nil {
		err = out.Encode(line{Kind: o.ObjectKind(), Object: raw})
	}
	if err != nil {
		return fmt.Errorf("write %s %s to the snapshot: %w", o.ObjectKind(), o.ObjectID(), err)
	}
	return nil
}

// Digest is the SHA-256 of what Save writes: equal for equal state.
func (v *View) Digest() ([sha256.Size]byte, error) {
	h := sha256.New()
	err := v.Save(h)
	return [sha256.Size]byte(h.Sum(nil)), err
}

// Save writes the present state as a snapshot.
func (s *Store) Save(w io.Writer) error { return s.View().Save(w) }

// Restore replaces everything by what Save wrote and wakes every watcher. On an
// error the state stays as it was.
func (s *Store) Restore(r io.Reader) error {
	db, index, err := load(r)
	if err != nil {
		return fmt.Errorf("read snapshot: %w", err)
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	s.db = db
	view := &View{txn: db.Txn(false), index: index}
	s.watch.replace(func() { s.view.Store(view) }, index)
	return nil
}

// load reads a whole snapshot into new tables.
func load(r io.Reader) (*memdb.MemDB, uint64, error) {
	in := json.NewDecoder(bufio.NewReader(r))
	var h header
	if err := in.Decode(&h); err != nil {
		return nil, 0, fmt.Errorf("header: %w", err)
	}
	if h.Format != snapshotFormat {
		return nil, 0, fmt.Errorf("format %d is not one of %d", h.Format, snapshotFormat)
	}
	db := newDB()
	t := db.Txn(true)
	defer t.Abort()
	if err := loadObjects(in, t); err != nil {
		return nil, 0, err
	}
	t.Commit()
	return db, h.Index, nil
}

// loadObjects reads up to the trailer and checks that nothing is missing.
func loadObjects(in *json.Decoder, t *memdb.Txn) error {
	for count := 0; ; count++ {
		var l line
		if err := in.Decode(&l); err != nil {
			return fmt.Errorf("after %d objects: %w", count, err)
		}
		if l.Kind == "" {
			if l.Objects == nil || *l.Objects != count {
				return fmt.Errorf("the trailer does not fit the %d objects before it", count)
			}
			return loadEnd(in)
		}
		if err := loadObject(t, l); err != nil {
			return fmt.Errorf("after %d objects: %w", count, err)
		}
	}
}

func loadEnd(in *json.Decoder) error {
	if _, err := in.Token(); err != io.EOF {
		return fmt.Errorf("more data after the trailer")
	}
	return nil
}

func loadObject(t *memdb.Txn, l line) error {
	o, err := api.NewObject(l.Kind)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(l.Object, o); err != nil {
		return fmt.Errorf("%s: %w", l.Kind, err)
	}
	if err := checkKeys(o); err != nil {
		return err
	}
	if first(t, l.Kind, byID, o.ObjectID()) != nil {
		return fmt.Errorf("%s %s is there twice", l.Kind, o.ObjectID())
	}
	// The snapshot held the invariants when it was written; checking them again
	// guards the indexes against a damaged file.
	if err := (&txn{Txn: t}).checkUnique(o); err != nil {
		return err
	}
	if err := t.Insert(string(l.Kind), o); err != nil {
		return fmt.Errorf("store %s %s: %w", l.Kind, o.ObjectID(), err)
	}
	return nil
}
