package standalone

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	mrand "math/rand/v2"
	"regexp"
	"strings"

	"shoal/control/api"
)

// namePattern is what Docker takes as the name of a container.
var namePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

func checkName(name string) error {
	if !namePattern.MatchString(name) {
		return api.Errorf(api.Invalid, "Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	return nil
}

// What names are made up of.
var (
	manners = strings.Fields("brisk calm clear early gentle keen light mild plain quiet quick round sharp silent slow small steady swift tidy warm")
	fishes  = strings.Fields("bass bream carp char cod dace eel gar goby hake herring ide ling loach perch pike roach ruffe shad smelt sprat tench trout zander")
)

func madeUp() string {
	return fmt.Sprintf("%s_%s%d", manners[mrand.IntN(len(manners))], fishes[mrand.IntN(len(fishes))], mrand.IntN(100))
}

func newID() string {
	var raw [32]byte
	rand.Read(raw[:]) // never fails
	return hex.EncodeToString(raw[:])
}
