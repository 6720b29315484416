package gossip

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/hashicorp/memberlist"
)

// keyBytes is the length of a gossip key: AES-256.
const keyBytes = 32

func checkKeys(keys [][]byte) error {
	if len(keys) == 0 {
		return errors.New("no gossip key")
	}
	for i, key := range keys {
		if len(key) != keyBytes {
			return fmt.Errorf("gossip key %d has %d bytes, not %d", i, len(key), keyBytes)
		}
	}
	return nil
}

// SetKeys replaces the gossip keys, primary first. Packets are sealed with the
// primary from now on, and opened with any of them. To rotate, first give all
// nodes the new key behind the old one, then before it, then alone.
func (g *Gossip) SetKeys(keys [][]byte) error {
	if err := checkKeys(keys); err != nil {
		return fmt.Errorf("set gossip keys: %w", err)
	}
	g.keysMu.Lock()
	defer g.keysMu.Unlock()
	for _, key := range keys {
		if err := g.keyring.AddKey(slices.Clone(key)); err != nil {
			return fmt.Errorf("add gossip key: %w", err)
		}
	}
	if err := g.keyring.UseKey(keys[0]); err != nil {
		return fmt.Errorf("use gossip key: %w", err)
	}
	return dropOthers(g.keyring, keys)
}

// dropOthers removes the keys that are not wanted. The ring shifts its keys in
// place under its readers when one from the middle is removed, so the unwanted
// are brought to the end first.
func dropOthers(ring *memberlist.Keyring, wanted [][]byte) error {
	isWanted := func(key []byte) bool {
		return slices.ContainsFunc(wanted, func(w []byte) bool { return bytes.Equal(w, key) })
	}
	held := slices.Clone(ring.GetKeys())
	firstOther := slices.IndexFunc(held, func(k []byte) bool { return !isWanted(k) })
	if firstOther < 0 {
		return nil
	}
	if slices.ContainsFunc(held[firstOther:], isWanted) {
		for _, key := range slices.Backward(wanted) {
			if err := ring.UseKey(key); err != nil {
				return fmt.Errorf("order gossip keys: %w", err)
			}
		}
	}
	for _, key := range slices.Backward(slices.Clone(ring.GetKeys())) {
		if isWanted(key) {
			continue
		}
		if err := ring.RemoveKey(key); err != nil {
			return fmt.Errorf("remove gossip key: %w", err)
		}
	}
	return nil
}
