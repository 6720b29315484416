package dockerapi

import "math/rand/v2"

// Words that names of services are made of when the user gives none.
var (
	nameFirst = []string{"amber", "brisk", "calm", "deep", "early", "fair", "glassy", "high", "idle", "keen", "late", "mild",
		"narrow", "open", "pale", "quick", "rocky", "silver", "tidal", "upper", "vivid", "warm", "young", "zesty"}
	nameSecond = []string{"anchor", "bay", "cod", "delta", "eel", "fjord", "gull", "harbor", "inlet", "jetty", "kelp", "lagoon",
		"mole", "nautilus", "otter", "perch", "quay", "reef", "shore", "tern", "urchin", "vessel", "wave", "yawl"}
)

// nameTries bounds the search for a name that is free.
const nameTries = 100

// randomName makes a name like "calm_reef", with a number where many are
// taken. It may be taken all the same; then the service is refused as if the
// user had given it.
func randomName(taken func(string) bool) string {
	var name string
	for try := range nameTries {
		name = nameFirst[rand.N(len(nameFirst))] + "_" + nameSecond[rand.N(len(nameSecond))]
		if try > 1 {
			name += string(rune('0' + rand.N(10)))
		}
		if !taken(name) {
			break
		}
	}
	return name
}
