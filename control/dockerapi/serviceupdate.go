package dockerapi

import (
	"net/http"
	"reflect"

	"github.com/moby/moby/api/types/swarm"

	"shoal/control/api"
	"shoal/control/dockerapi/wire"
	"shoal/control/store"
)

// specUpdate is what a user asks of a service.
type specUpdate struct {
	ref      string
	version  uint64
	spec     swarm.ServiceSpec
	rollback bool
	// authFromPrevious asks for the registry credentials of the previous spec.
	authFromPrevious bool
}

func (a *API) updateService(w http.ResponseWriter, r *http.Request, vars map[string]string) error {
	spec, err := readSpec(r)
	if err != nil {
		return err
	}
	version, err := wire.ObjectVersion(r, "service")
	if err != nil {
		return err
	}
	u := specUpdate{ref: vars["id"], version: version, spec: spec}
	if err := u.readOptions(r); err != nil {
		return err
	}
	err = a.change(r.Context(), func(v *store.View) ([]api.Op, error) {
		s, err := a.updatedService(v, u)
		if err != nil {
			return nil, err
		}
		return append(predefine(v, &s.Spec), api.Update(s)), nil
	})
	if err != nil {
		return err
	}
	return wire.WriteJSON(w, http.StatusOK, swarm.ServiceUpdateResponse{Warnings: warnings(r, spec)})
}

func (u *specUpdate) readOptions(r *http.Request) error {
	switch rollback := r.URL.Query().Get("rollback"); rollback {
	case "", "none":
	case "previous":
		u.rollback = true
	default:
		return api.Errorf(api.Internal, "unrecognized rollback option %s", rollback)
	}
	switch from := r.URL.Query().Get("registryAuthFrom"); swarm.RegistryAuthSource(from) {
	case "", swarm.RegistryAuthFromSpec:
	case swarm.RegistryAuthFromPreviousSpec:
		u.authFromPrevious = true
	default:
		return api.Errorf(api.Internal, "unsupported registryAuthFrom value")
	}
	return nil
}

// updatedService is the stored service with the user's change.
func (a *API) updatedService(v *store.View, u specUpdate) (*api.Service, error) {
	old, err := findService(v, u.ref)
	if err != nil {
		return nil, err
	}
	if err := checkRead(u.version, old.Version, old.SpecVersion); err != nil {
		return nil, err
	}
	s := old.Copy()
	if u.rollback || u.authFromPrevious {
		if s.PreviousSpec == nil {
			return nil, api.Errorf(api.Invalid, "service %s does not have a previous spec", u.ref)
		}
	}
	if u.rollback {
		a.rollBack(s)
		return s, checkRolledBack(v, s)
	}
	spec := copySpec(u.spec)
	if err := checkUpdatedSpec(v, old, &spec); err != nil {
		return nil, err
	}
	previous := s.Spec
	s.PreviousSpec, s.Spec = &previous, spec
	s.UpdateStatus = nil
	return s, nil
}

func checkUpdatedSpec(v *store.View, old *api.Service, spec *swarm.ServiceSpec) error {
	self := old.ID
	if err := checkNewSpec(v, spec, self); err != nil {
		return err
	}
	if modeOf(spec.Mode) != modeOf(old.Spec.Mode) {
		return api.Errorf(api.Unimplemented, "service mode change is not allowed")
	}
	if spec.Name != old.Spec.Name {
		return api.Errorf(api.Unimplemented, "renaming services is not supported")
	}
	return nil
}

// rollBack swaps the spec and the previous one. Their versions are the store's
// to set.
func (a *API) rollBack(s *api.Service) {
	current := s.Spec
	s.Spec, s.PreviousSpec = *s.PreviousSpec, &current
	now := a.cfg.Now()
	s.UpdateStatus = &swarm.UpdateStatus{
		State: swarm.UpdateStateRollbackStarted, StartedAt: &now, Message: "manually requested rollback",
	}
}

// checkRolledBack refuses a rollback to ports that another service has taken
// meanwhile, to networks that are gone, or to what a node cannot balance by.
func checkRolledBack(v *store.View, s *api.Service) error {
	for _, n := range s.Spec.TaskTemplate.Networks {
		if v.Network(n.Target) == nil {
			return api.Errorf(api.Internal, "network %s not found", n.Target)
		}
	}
	if err := checkBalancers(v, &s.Spec, s.PreviousSpec); err != nil {
		return err
	}
	if reflect.DeepEqual(s.Spec.EndpointSpec, s.PreviousSpec.EndpointSpec) {
		return nil
	}
	if err := checkPortConflicts(v, &s.Spec, s.ID); err != nil {
		return err
	}
	return checkIngress(v, &s.Spec)
}
