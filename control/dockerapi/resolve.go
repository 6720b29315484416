package dockerapi

import (
	"strings"

	"shoal/control/api"
)

// Objects are found by full id, then by exact name, then by a unique beginning
// of the id. Two that fit are an Invalid error, none is NotFound.

func findService(v View, ref string) (*api.Service, error) {
	if s := v.Service(ref); s != nil {
		return s, nil
	}
	if s := v.ServiceByName(ref); s != nil {
		return s, nil
	}
	return byPrefix("service", ref, v.Services())
}

func findNetwork(v View, ref string) (*api.Network, error) {
	if n := v.Network(ref); n != nil {
		return n, nil
	}
	if n := v.NetworkByName(ref); n != nil {
		return n, nil
	}
	return byPrefix("network", ref, v.Networks())
}

func findNode(v View, ref string) (*api.Node, error) {
	if n := v.Node(ref); n != nil {
		return n, nil
	}
	all := v.Nodes()
	var named []*api.Node
	for _, n := range all {
		if n.Description.Hostname == ref || n.Spec.Name == ref && ref != "" {
			named = append(named, n)
		}
	}
	if len(named) > 0 {
		return only("node", ref, named)
	}
	return byPrefix("node", ref, all)
}

func findTask(v View, ref string) (*api.Task, error) {
	if t := v.Task(ref); t != nil {
		return t, nil
	}
	all := v.Tasks()
	for _, t := range all {
		if taskName(t) == ref {
			return t, nil
		}
	}
	return byPrefix("task", ref, all)
}

func byPrefix[T api.Object](what, ref string, all []T) (T, error) {
	var fit []T
	for _, o := range all {
		if ref != "" && strings.HasPrefix(o.ObjectID(), ref) {
			fit = append(fit, o)
		}
	}
	return only(what, ref, fit)
}

func only[T api.Object](what, ref string, fit []T) (T, error) {
	var none T
	switch len(fit) {
	case 0:
		return none, api.Errorf(api.NotFound, "%s %s not found", what, ref)
	case 1:
		return fit[0], nil
	}
	return none, api.Errorf(api.Invalid, "%s %s is ambiguous (%d matches found)", what, ref, len(fit))
}
