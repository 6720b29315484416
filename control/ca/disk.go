package ca

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// identityFile holds key, certificate and root together, so that one rename
// replaces them all or none.
const identityFile = "identity.pem"

// SaveIdentity writes the credentials into dir (made with mode 0700 when missing)
// as one file of mode 0600. It is durable when SaveIdentity returns, and a crash
// leaves the old file or the new one, never a mixture.
func SaveIdentity(dir string, c *Credentials) error {
	text, err := c.encode()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	if err := sweepTemporaries(dir); err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	if err := replaceFile(filepath.Join(dir, identityFile), text); err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	return nil
}

// sweepTemporaries removes what a process that died while saving left behind.
func sweepTemporaries(dir string) error {
	stale, err := filepath.Glob(filepath.Join(dir, identityFile+".*"))
	if err != nil {
		return err
	}
	for _, path := range stale {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// LoadIdentity reads what SaveIdentity wrote. The error is os.ErrNotExist when
// the node has no identity yet.
func LoadIdentity(dir string) (*Credentials, error) {
	path := filepath.Join(dir, identityFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load identity: %w", err)
	}
	c, err := decode(text)
	if err != nil {
		return nil, fmt.Errorf("load identity from %s: %w", path, err)
	}
	return c, nil
}

// RemoveIdentity deletes the credentials in dir; that there are none is no error.
func RemoveIdentity(dir string) error {
	err := os.Remove(filepath.Join(dir, identityFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove identity: %w", err)
	}
	return nil
}

// replaceFile writes beside path, syncs, and renames over it.
func replaceFile(path string, content []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), identityFile+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(content)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes a rename in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
