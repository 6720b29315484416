package dockerapi

import (
	"shoal/control/api"
	"shoal/control/store"
)

func findService(v *store.View, ref string) (*api.Service, error) {
	return find[*api.Service](v, api.KindService, ref)
}

func findNetwork(v *store.View, ref string) (*api.Network, error) {
	return find[*api.Network](v, api.KindNetwork, ref)
}

func findNode(v *store.View, ref string) (*api.Node, error) {
	return find[*api.Node](v, api.KindNode, ref)
}

// findTask also takes the name of a task, which is the name of its container.
func findTask(v *store.View, ref string) (*api.Task, error) {
	t, err := find[*api.Task](v, api.KindTask, ref)
	if api.KindOf(err) != api.NotFound {
		return t, err
	}
	for _, t := range v.Tasks() {
		if taskName(t) == ref {
			return t, nil
		}
	}
	return nil, err
}

// find returns what a person means by ref, as store.View.Resolve describes.
func find[T api.Object](v *store.View, kind api.Kind, ref string) (T, error) {
	var none T
	o, err := v.Resolve(kind, ref)
	if err != nil {
		return none, err
	}
	return o.(T), nil
}
