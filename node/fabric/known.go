package fabric

import (
	"shoal/dataplane/lb"
	"shoal/dns/zone"
	"shoal/node/plan"
	"shoal/overlay/vxlan"
	"shoal/overlay/wireguard"
)

// known is what was made true and not changed since: what a step compares its wish
// with. A place that did not take what it was given is not in it, so that it is
// tried again with the next step, and no other.
type known struct {
	overlay      *vxlan.Desired // nil when it is in doubt
	zone         *zone.Model    // likewise
	translations map[string]lb.Translation
	balancers    map[string]lb.Desired
	// vault was tried last, and has it when vaulted; what it has not is tried again
	// with the next full step.
	vault   wireguard.Desired
	vaulted bool
}

func newKnown() known {
	return known{translations: map[string]lb.Translation{}, balancers: map[string]lb.Desired{}}
}

// forget drops what is known of a namespace, for one that ends.
func (k *known) forget(namespace string) {
	delete(k.translations, namespace)
	delete(k.balancers, namespace)
}

// keep drops what is known of namespaces that are not wished any more.
func (k *known) keep(out plan.Output) {
	translated, balanced := map[string]bool{}, map[string]bool{}
	for _, t := range out.Translations {
		translated[t.Namespace] = true
	}
	for _, d := range out.Balancers {
		balanced[d.Namespace] = true
	}
	for ns := range k.translations {
		if !translated[ns] {
			delete(k.translations, ns)
		}
	}
	for ns := range k.balancers {
		if !balanced[ns] {
			delete(k.balancers, ns)
		}
	}
}
