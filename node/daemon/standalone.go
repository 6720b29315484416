package daemon

import (
	"time"

	"github.com/moby/moby/api/types/events"

	"shoal/node/agent"
	"shoal/node/standalone"
)

// openStandalone takes up the containers that are no service's. They are known
// before the agent is, which asks for them.
func (d *Daemon) openStandalone() (*standalone.Store, error) {
	return standalone.Open(standalone.Config{
		Dir: agent.StandaloneDir(d.path("agent")), VolumeDir: d.path("volumes"), Runtime: d.runtime, Now: time.Now, Logger: d.cfg.Logger,
		Cluster: func() standalone.Cluster {
			if m := d.current(); m != nil {
				return m.session
			}
			return nil
		},
		Emit: func(action events.Action, id string, attributes map[string]string) {
			d.engine.Emit(events.ContainerEventType, action, id, attributes)
		},
	})
}
