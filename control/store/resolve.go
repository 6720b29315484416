package store

import "shoal/control/api"

// Resolve finds what a person means by ref: a full id, else an exact name (a
// node's is its host name), else the unambiguous beginning of an id. It returns
// an api.Error of kind NotFound or, when several objects fit, Invalid.
func (v *View) Resolve(kind api.Kind, ref string) (api.Object, error) {
	if _, err := api.NewObject(kind); err != nil {
		return nil, err
	}
	if ref == "" {
		return nil, notFound(kind, ref)
	}
	if o := first(v.txn, kind, byID, ref); o != nil {
		return o, nil
	}
	if found := v.named(kind, ref); len(found) > 0 {
		return single(kind, ref, found)
	}
	return single(kind, ref, list[api.Object](v.txn, kind, byIDPrefix, ref))
}

// named returns the objects with the name.
func (v *View) named(kind api.Kind, name string) []api.Object {
	switch kind {
	case api.KindTask:
		return nil
	case api.KindNode:
		return list[api.Object](v.txn, kind, byHostname, name)
	}
	return list[api.Object](v.txn, kind, byName, name)
}

func single(kind api.Kind, ref string, found []api.Object) (api.Object, error) {
	switch len(found) {
	case 0:
		return nil, notFound(kind, ref)
	case 1:
		return found[0], nil
	}
	return nil, api.Errorf(api.Invalid, "%s %s is ambiguous (%d matches found)", kind, ref, len(found))
}
