package dispatch

import (
	"net/http"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/rpc"
)

// The routes of dispatch on the control port.
const (
	sessionPath = "/dispatch/session"
	reportPath  = "/dispatch/report"
	attachPath  = "/dispatch/attach"
	detachPath  = "/dispatch/detach"
)

// Register adds the routes. Nodes are who their certificate says.
func (d *Dispatcher) Register(mux *rpc.Mux) {
	mux.Handle("POST "+sessionPath, d.serveSession, swarm.NodeRoleManager, swarm.NodeRoleWorker)
	mux.Handle("POST "+reportPath, d.serveReport, swarm.NodeRoleManager, swarm.NodeRoleWorker)
	mux.Handle("POST "+attachPath, d.serveAttach, swarm.NodeRoleManager, swarm.NodeRoleWorker)
	mux.Handle("POST "+detachPath, d.serveDetach, swarm.NodeRoleManager, swarm.NodeRoleWorker)
}

// serveSession begins its answer with the first message only, so that a refusal
// still reaches the node as an error.
func (d *Dispatcher) serveSession(w http.ResponseWriter, r *http.Request) error {
	peer, _ := rpc.PeerFrom(r.Context())
	var lines *rpc.Lines
	return d.Session(r.Context(), peer.NodeID, func(message api.Assignment) (err error) {
		if lines == nil {
			if lines, err = rpc.NewLines(w); err != nil {
				return err
			}
		}
		return lines.Write(message)
	})
}

func (d *Dispatcher) serveReport(w http.ResponseWriter, r *http.Request) error {
	var report api.Report
	if err := rpc.ReadJSON(r, &report); err != nil {
		return err
	}
	peer, _ := rpc.PeerFrom(r.Context())
	if err := d.Report(r.Context(), peer.NodeID, report); err != nil {
		return err
	}
	return rpc.WriteJSON(w, struct{}{})
}
