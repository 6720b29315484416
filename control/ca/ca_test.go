package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// credentials issues an identity under root.
func credentials(root *Root, id Identity, now time.Time, lifetime time.Duration) *Credentials {
	csr, key, err := NewRequest()
	if err != nil {
		panic(err)
	}
	cert := must(root.Issue(csr, id, now, lifetime))
	return must(NewCredentials(key, cert, root.CertPEM()))
}

func manager(id string) Identity { return Identity{id, swarm.NodeRoleManager, "c1"} }
func worker(id string) Identity  { return Identity{id, swarm.NodeRoleWorker, "c1"} }

func TestRootIsThatOfSwarm(t *testing.T) {
	now := time.Now()
	root := must(NewRoot(now))
	if root.Cert.Subject.CommonName != "swarm-ca" || !root.Cert.IsCA {
		t.Errorf("subject %s, IsCA %v", root.Cert.Subject, root.Cert.IsCA)
	}
	if life := root.Cert.NotAfter.Sub(now); life < 19*365*24*time.Hour || life > 21*365*24*time.Hour {
		t.Errorf("root lives %s", life)
	}
	if k, ok := root.Cert.PublicKey.(*ecdsa.PublicKey); !ok || k.Curve != elliptic.P256() {
		t.Errorf("root key is %T", root.Cert.PublicKey)
	}
	again := must(ParseRoot(root.CertPEM(), must(root.KeyPEM())))
	if !again.Cert.Equal(root.Cert) || !again.key.Equal(root.key) {
		t.Error("root does not survive PEM")
	}
	other := must(NewRoot(now))
	if _, err := ParseRoot(root.CertPEM(), must(other.KeyPEM())); err == nil {
		t.Error("a foreign key was taken for the root's")
	}
}

func TestIssueDecidesEverythingButTheKey(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	root := must(NewRoot(now))
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	der := must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "root", OrganizationalUnit: []string{"swarm-manager"}},
		DNSNames: []string{"evil.example"},
	}, key))
	csr := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	cert := must(parseOne(must(root.Issue(csr, worker("n1"), now, 0))))
	id := must(IdentityOf(cert))
	if id != worker("n1") {
		t.Errorf("identity %+v", id)
	}
	if len(cert.DNSNames) != 0 || cert.IsCA {
		t.Errorf("request's extensions were copied: %v", cert.DNSNames)
	}
	if !cert.NotBefore.Equal(now.Add(-time.Hour)) || !cert.NotAfter.Equal(now.Add(90*24*time.Hour)) {
		t.Errorf("valid %s to %s", cert.NotBefore, cert.NotAfter)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		pool := x509.NewCertPool()
		pool.AddCert(root.Cert)
		if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			t.Errorf("usage %v: %v", usage, err)
		}
	}
}

func TestIssueBoundsLifetime(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	root := must(NewRoot(now))
	for _, c := range []struct{ ask, want time.Duration }{
		{0, DefaultLifetime}, {time.Minute, MinLifetime}, {-5, MinLifetime}, {48 * time.Hour, 48 * time.Hour},
		{200 * 365 * 24 * time.Hour, root.Cert.NotAfter.Sub(now)},
	} {
		got := credentials(root, worker("n"), now, c.ask).Leaf.NotAfter.Sub(now)
		if got != c.want {
			t.Errorf("asked %s: got %s, want %s", c.ask, got, c.want)
		}
	}
}

func TestIssueRefuses(t *testing.T) {
	root := must(NewRoot(time.Now()))
	good, _, err := NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))
	rsaCSR := pem.EncodeToMemory(&pem.Block{Type: pemCSR, Bytes: must(x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, rsaKey))})
	block, _ := pem.Decode(good)
	block.Bytes[len(block.Bytes)-1] ^= 1 // breaks the proof of possession
	forged := pem.EncodeToMemory(block)
	for name, c := range map[string]struct {
		csr  []byte
		id   Identity
		kind api.ErrorKind
	}{
		"empty":      {nil, worker("n"), api.Invalid},
		"text":       {[]byte("hello"), worker("n"), api.Invalid},
		"rsa":        {rsaCSR, worker("n"), api.Invalid},
		"forged":     {forged, worker("n"), api.Invalid},
		"no node":    {good, Identity{"", swarm.NodeRoleWorker, "c"}, api.Internal},
		"no cluster": {good, Identity{"n", swarm.NodeRoleWorker, ""}, api.Internal},
		"no role":    {good, Identity{"n", "king", "c"}, api.Internal},
	} {
		if _, err := root.Issue(c.csr, c.id, time.Now(), 0); err == nil || api.KindOf(err) != c.kind {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRenewAt(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	root := must(NewRoot(now))
	cert := credentials(root, worker("n"), now, 10*time.Hour).Leaf
	for fraction, want := range map[float64]time.Duration{0: 5 * time.Hour, 0.5: 6*time.Hour + 30*time.Minute, 1: 8 * time.Hour, -3: 5 * time.Hour, 7: 8 * time.Hour} {
		got := RenewAt(cert, fraction).Sub(now)
		if d := got - want; d < -time.Second || d > time.Second {
			t.Errorf("fraction %v: after %s, want %s", fraction, got, want)
		}
	}
}

func TestIdentityOfRefusesForeignSubjects(t *testing.T) {
	for name, subject := range map[string]pkix.Name{
		"empty": {}, "no unit": {CommonName: "n", Organization: []string{"c"}},
		"two units":    {CommonName: "n", OrganizationalUnit: []string{unitWorker, unitManager}, Organization: []string{"c"}},
		"unknown unit": {CommonName: "n", OrganizationalUnit: []string{"swarm-ca"}, Organization: []string{"c"}},
		"no cluster":   {CommonName: "n", OrganizationalUnit: []string{unitWorker}},
	} {
		if id, err := IdentityOf(&x509.Certificate{Subject: subject}); err == nil {
			t.Errorf("%s: %+v", name, id)
		}
	}
}

func TestSaveAndLoad(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	if _, err := LoadIdentity(dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("empty: %v", err)
	}
	root := must(NewRoot(time.Now()))
	for i := range 3 {
		c := credentials(root, worker(fmt.Sprint("n", i)), time.Now(), 0)
		if err := SaveIdentity(dir, c); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "identity.pem.123"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		got := must(LoadIdentity(dir))
		if got.Identity != c.Identity || !got.Leaf.Equal(c.Leaf) || !got.key.Equal(c.key) || !got.Root.Equal(root.Cert) {
			t.Errorf("loaded %v", got)
		}
	}
	if err := SaveIdentity(dir, credentials(root, worker("n"), time.Now(), 0)); err != nil {
		t.Fatal(err)
	}
	entries := must(os.ReadDir(dir))
	if len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	info := must(os.Stat(filepath.Join(dir, "identity.pem")))
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if err := errors.Join(RemoveIdentity(dir), RemoveIdentity(dir)); err != nil {
		t.Error(err)
	}
}

func TestLoadRefusesDamage(t *testing.T) {
	dir := t.TempDir()
	root := must(NewRoot(time.Now()))
	text := must(credentials(root, worker("n"), time.Now(), 0).encode())
	foreign := must(credentials(must(NewRoot(time.Now())), worker("n"), time.Now(), 0).encode())
	for name, bad := range map[string][]byte{"empty": nil, "half": text[:len(text)/2], "twice": append(text, text...), "mixed": append(text[:300], foreign[300:]...)} {
		if err := os.WriteFile(filepath.Join(dir, identityFile), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if c, err := LoadIdentity(dir); err == nil {
			t.Errorf("%s: loaded %v", name, c)
		}
	}
}

func TestNothingPrintsSecrets(t *testing.T) {
	root := must(NewRoot(time.Now()))
	c := credentials(root, manager("n"), time.Now(), 0)
	token := NewToken(root.Cert)
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		out := fmt.Sprintf(format+format+format+format, root, c, token, []any{token, struct{ T Token }{token}})
		for _, secret := range []string{token.secret, root.key.D.String(), fmt.Sprintf("%x", c.key.D), c.key.D.String()} {
			if strings.Contains(out, secret) {
				t.Errorf("%s prints a secret: %s", format, out)
			}
		}
	}
}
