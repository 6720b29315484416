package dockerapi

import (
	"net/http"

	"shoal/control/api"
	"shoal/control/dockerapi/wire"
)

// mountSecrets adds the routes of secrets or configs. The cluster holds none:
// lists are empty, so that tools which merely look go on, and creation is
// refused.
func (a *API) mountSecrets(rt *wire.Router, what string, accepted ...string) {
	missing := func(_ http.ResponseWriter, _ *http.Request, vars map[string]string) error {
		return api.Errorf(api.NotFound, "%s %s not found", what, vars["id"])
	}
	base := "/" + what + "s"
	rt.Handle("GET", base, a.onManager(func(w http.ResponseWriter, r *http.Request, _ map[string]string) error {
		if _, err := wire.ParseFilters(r, accepted...); err != nil {
			return err
		}
		return wire.WriteJSON(w, http.StatusOK, []struct{}{})
	}))
	rt.Handle("POST", base+"/create", a.onManager(func(http.ResponseWriter, *http.Request, map[string]string) error {
		return api.Errorf(api.Unimplemented, "%ss are not supported by this version", what)
	}))
	rt.Handle("GET", base+"/{id}", a.onManager(missing))
	rt.Handle("DELETE", base+"/{id}", a.onManager(missing))
	rt.Handle("POST", base+"/{id}/update", a.onManager(missing))
}
