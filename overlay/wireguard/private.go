package wireguard

import (
	"crypto/ecdh"
	"fmt"
	"io"
	"log/slog"
)

// Private is a private key of Curve25519. It prints as a word, so that no log
// and no view can show it.
type Private struct{ bytes [32]byte }

// hidden stands for a private key wherever one would be printed.
const hidden = "(private key)"

// NewPrivate draws a key from a source of randomness.
func NewPrivate(random io.Reader) (Private, error) {
	key, err := ecdh.X25519().GenerateKey(random)
	if err != nil {
		return Private{}, fmt.Errorf("draw a WireGuard key: %w", err)
	}
	return PrivateOf(key.Bytes())
}

// PrivateOf takes the bytes of a private key.
func PrivateOf(raw []byte) (Private, error) {
	if len(raw) != len(Private{}.bytes) {
		return Private{}, fmt.Errorf("a WireGuard key has 32 bytes, not %d", len(raw))
	}
	return Private{[32]byte(raw)}, nil
}

// Reveal returns the key itself, for the kernel and the node's own disk.
func (p Private) Reveal() []byte { return append([]byte(nil), p.bytes[:]...) }

// Public is the public key that belongs to it.
func (p Private) Public() (Key, error) {
	key, err := ecdh.X25519().NewPrivateKey(p.bytes[:])
	if err != nil {
		return Key{}, fmt.Errorf("derive the public key: %w", err)
	}
	return KeyOf(key.PublicKey().Bytes())
}

// String hides the key.
func (p Private) String() string { return hidden }

// GoString hides the key.
func (p Private) GoString() string { return hidden }

// Format hides the key from every verb.
func (p Private) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, hidden) }

// LogValue hides the key.
func (p Private) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText hides the key.
func (p Private) MarshalText() ([]byte, error) { return []byte(hidden), nil }
