package ca

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"log/slog"
	"math/big"
	"strings"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

const (
	tokenPrefix  = "SWMTKN-1-"
	digestLength = 50 // base36 digits that hold 256 bits
	secretLength = 25 // base36 digits that hold 128 bits
	base36       = "0123456789abcdefghijklmnopqrstuvwxyz"
)

// Token is a join token: `SWMTKN-1-<digest>-<secret>`, where digest is the
// SHA-256 of the root certificate's DER in 50 base36 digits and secret 128 random
// bits in 25. Whoever holds it may join; it prints itself redacted.
type Token struct{ digest, secret string }

// NewToken mints a token that pins root.
func NewToken(root *x509.Certificate) Token {
	var raw [16]byte
	rand.Read(raw[:]) // never fails: it ends the process instead
	return Token{digest: digestOf(root), secret: digits(raw[:], secretLength)}
}

// ParseToken reads a token. Anything else than a token in its one canonical
// spelling is the error `invalid join token`, of kind api.Internal as Docker answers it.
func ParseToken(text string) (Token, error) {
	body, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok || len(body) != digestLength+1+secretLength || body[digestLength] != '-' {
		return Token{}, errInvalidToken()
	}
	t := Token{digest: body[:digestLength], secret: body[digestLength+1:]}
	if !isNumber(t.digest, 256) || !isNumber(t.secret, 128) {
		return Token{}, errInvalidToken()
	}
	return t, nil
}

func errInvalidToken() error { return api.Errorf(api.Internal, "invalid join token") }

// Reveal returns the token's text: a secret.
func (t Token) Reveal() string { return tokenPrefix + t.digest + "-" + t.secret }

// String names the token without its secret.
func (t Token) String() string { return tokenPrefix + "[redacted]" }

// GoString is String.
func (t Token) GoString() string { return t.String() }

// LogValue is String.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// Pins says whether the token was made for the root.
func (t Token) Pins(root *x509.Certificate) bool {
	return subtle.ConstantTimeCompare([]byte(t.digest), []byte(digestOf(root))) == 1
}

// Equal compares two tokens in constant time.
func (t Token) Equal(o Token) bool {
	return subtle.ConstantTimeCompare([]byte(t.Reveal()), []byte(o.Reveal())) == 1
}

// RoleOf returns the role that a token gives in a cluster with those tokens.
// A token that is malformed or not one of them is `invalid join token`.
func RoleOf(tokens swarm.JoinTokens, text string) (swarm.NodeRole, error) {
	shown, err := ParseToken(text)
	if err != nil {
		return "", err
	}
	if worker, err := ParseToken(tokens.Worker); err == nil && worker.Equal(shown) {
		return swarm.NodeRoleWorker, nil
	}
	if manager, err := ParseToken(tokens.Manager); err == nil && manager.Equal(shown) {
		return swarm.NodeRoleManager, nil
	}
	return "", errInvalidToken()
}

func digestOf(root *x509.Certificate) string {
	sum := sha256.Sum256(root.Raw)
	return digits(sum[:], digestLength)
}

// digits writes raw as a base36 number of exactly n digits.
func digits(raw []byte, n int) string {
	text := new(big.Int).SetBytes(raw).Text(36)
	return strings.Repeat("0", n-len(text)) + text
}

// isNumber says whether text is lower-case base36 and fits into so many bits.
func isNumber(text string, bits int) bool {
	if strings.Trim(text, base36) != "" {
		return false
	}
	n, ok := new(big.Int).SetString(text, 36)
	return ok && n.BitLen() <= bits
}
