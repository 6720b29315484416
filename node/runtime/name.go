package runtime

import (
	"github.com/distribution/reference"
)

// NormalizeRef gives an image reference its full form: registry, repository and
// the tag latest when there is neither tag nor digest. A reference with both
// keeps only its digest, because that alone says which image is meant.
func NormalizeRef(ref string) (string, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", Invalid("invalid reference format: %q: %v", ref, err)
	}
	return named.String(), nil
}

// FamiliarRef is a reference as people write it: without docker.io and library.
func FamiliarRef(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ref
	}
	return reference.FamiliarString(reference.TagNameOnly(named))
}

// Pinned reports whether a reference names an image by its content.
func Pinned(ref string) bool {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return false
	}
	_, pinned := named.(reference.Digested)
	return pinned
}
