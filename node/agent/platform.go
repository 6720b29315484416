package agent

import (
	"runtime"

	"github.com/moby/moby/api/types/swarm"
)

// platform is what node.platform constraints and templates see, in the words
// that Docker uses for architectures.
var platform = swarm.Platform{OS: runtime.GOOS, Architecture: architecture(runtime.GOARCH)}

// Platform returns the node's operating system and architecture.
func Platform() swarm.Platform { return platform }

func architecture(goarch string) string {
	switch goarch {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return goarch
}
