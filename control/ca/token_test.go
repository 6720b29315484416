package ca

import (
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

func TestTokens(t *testing.T) {
	root, other := must(NewRoot(time.Now())), must(NewRoot(time.Now()))
	a, b := NewToken(root.Cert), NewToken(root.Cert)
	if len(a.Reveal()) != len("SWMTKN-1-")+50+1+25 {
		t.Errorf("token %q", a.Reveal())
	}
	if !a.Pins(root.Cert) || a.Pins(other.Cert) || a.Equal(b) || !a.Equal(must(ParseToken(a.Reveal()))) {
		t.Error("tokens do not compare as they should")
	}
	tokens := swarm.JoinTokens{Worker: a.Reveal(), Manager: b.Reveal()}
	for _, c := range []struct {
		text string
		role swarm.NodeRole
	}{{a.Reveal(), swarm.NodeRoleWorker}, {b.Reveal(), swarm.NodeRoleManager}, {NewToken(root.Cert).Reveal(), ""}, {NewToken(other.Cert).Reveal(), ""}, {"", ""}} {
		role, err := RoleOf(tokens, c.text)
		if role != c.role || (err == nil) != (c.role != "") {
			t.Errorf("%q: role %q, %v", c.text, role, err)
		}
	}
	if _, err := RoleOf(swarm.JoinTokens{}, ""); err == nil {
		t.Error("an empty token opens a cluster without tokens")
	}
}

func TestParseTokenRefuses(t *testing.T) {
	good := NewToken(must(NewRoot(time.Now())).Cert).Reveal()
	digest, secret := good[9:59], good[60:]
	for _, bad := range []string{
		"", " ", "SWMTKN-1-", good + " ", " " + good, good[:len(good)-1], good + "0", strings.ToUpper(good),
		"SWMTKN-2-1-" + digest + "-" + secret, "SWMKEY-1-" + digest + "-" + secret, "SWMTKN-1-" + digest + "_" + secret,
		"SWMTKN-1-" + strings.Repeat("z", 50) + "-" + secret, "SWMTKN-1-" + digest + "-" + strings.Repeat("z", 25),
		"SWMTKN-1-" + digest + "-" + "-1" + secret[2:], "SWMTKN-1-" + digest + "-" + secret[:12] + "_" + secret[13:],
	} {
		_, err := ParseToken(bad)
		if err == nil || err.Error() != "invalid join token" || api.KindOf(err) != api.Internal {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add(NewToken(must(NewRoot(time.Now())).Cert).Reveal())
	f.Add("SWMTKN-1--")
	f.Add("SWMTKN-1-" + strings.Repeat("0", 50) + "-" + strings.Repeat("0", 25))
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err == nil && token.Reveal() != text {
			t.Errorf("%q parses as %q", text, token.Reveal())
		}
	})
}

func FuzzCredentials(f *testing.F) {
	root := must(NewRoot(time.Now()))
	f.Add(must(credentials(root, worker("n"), time.Now(), 0).encode()))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := decode(text)
		if err == nil && c.Identity.NodeID == "" {
			t.Error("credentials of nobody")
		}
	})
}

func FuzzRequest(f *testing.F) {
	root := must(NewRoot(time.Now()))
	csr, _, err := NewRequest()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(csr)
	f.Fuzz(func(t *testing.T, text []byte) {
		cert, err := root.Issue(text, worker("n"), time.Now(), 0)
		if err != nil {
			return
		}
		if id := must(IdentityOf(must(parseOne(cert)))); id != worker("n") {
			t.Errorf("issued %+v", id)
		}
	})
}
