package archive

import (
	"archive/tar"
	"fmt"
	"maps"
	"slices"
	"strings"
)

func put(w *tar.Writer, name string, mode int64, content []byte) error {
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content)), ModTime: epoch, Format: tar.FormatUSTAR}
	if err := w.WriteHeader(header); err != nil {
		return fmt.Errorf("begin %s in the archive: %w", name, err)
	}
	if _, err := w.Write(content); err != nil {
		return fmt.Errorf("write %s to the archive: %w", name, err)
	}
	return nil
}

// directories makes the directories above name that are not made yet.
func directories(w *tar.Writer, name string, made map[string]bool) error {
	for at, c := range name {
		directory := name[:at] + "/"
		if c != '/' || made[directory] || strings.Trim(directory, "/") == "" {
			continue
		}
		made[directory] = true
		header := &tar.Header{Typeflag: tar.TypeDir, Name: directory, Mode: 0o755, ModTime: epoch, Format: tar.FormatUSTAR}
		if err := w.WriteHeader(header); err != nil {
			return fmt.Errorf("make %s in the archive: %w", directory, err)
		}
	}
	return nil
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
