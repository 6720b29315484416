package lb

// Eligible returns the backends that may get a new flow.
func (s Service) Eligible() []Backend {
	var out []Backend
	for _, b := range s.Backends {
		if !b.Draining {
			out = append(out, b)
		}
	}
	return out
}

// SlotsMax bounds the table that Slots makes.
const SlotsMax = 1024

// Slots spreads the eligible backends of a canonical service over a table of
// equal slots, for kernels that choose by a number: one slot each, or where the
// algorithm heeds weights as many as the weight says after dividing by what all
// have in common. Backends of high weight are interleaved with the others. A
// table above SlotsMax is scaled down; every backend keeps a slot at least. The
// table of Maglev has MaglevSlots, whatever the weights.
func (s Service) Slots() []Backend {
	backends := s.Eligible()
	if len(backends) == 0 || s.Algorithm == RoundRobin || s.Algorithm == LeastConn {
		return backends
	}
	if s.Algorithm == Maglev {
		return maglev(backends)
	}
	shares, total := shares(backends)
	// Each round, everyone gains its share and the richest pays the total: that
	// interleaves as evenly as possible.
	credit := make([]int, len(backends))
	out := make([]Backend, 0, total)
	for range total {
		best := 0
		for i := range credit {
			credit[i] += shares[i]
			if credit[i] > credit[best] {
				best = i
			}
		}
		credit[best] -= total
		out = append(out, backends[best])
	}
	return out
}

func shares(backends []Backend) (shares []int, total int) {
	divisor := 0
	for _, b := range backends {
		divisor = gcd(divisor, int(max(b.Weight, 1)))
	}
	for _, b := range backends {
		shares = append(shares, int(max(b.Weight, 1))/divisor)
		total += shares[len(shares)-1]
	}
	if total <= SlotsMax {
		return shares, total
	}
	scaled := 0
	for i := range shares {
		shares[i] = max(1, shares[i]*SlotsMax/total)
		scaled += shares[i]
	}
	return shares, scaled
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
