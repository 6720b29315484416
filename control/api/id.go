package api

import (
	"crypto/rand"
	"math/big"
)

// idLength is the length of a base36 id that holds 128 random bits.
const idLength = 25

// NewID mints a random id: 25 characters of base36, as Docker's swarm objects
// have. Only proposers mint ids; replicated code never does.
func NewID() string {
	var raw [16]byte
	if _, err := rand.Read(raw[:]); err != nil {
		panic("api: no randomness: " + err.Error())
	}
	text := new(big.Int).SetBytes(raw[:]).Text(36)
	for len(text) < idLength {
		text = "0" + text
	}
	return text
}
