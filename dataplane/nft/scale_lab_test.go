//go:build lab

package nft_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"shoal/bench/need"
	"shoal/dataplane/lb"
	"shoal/dataplane/nft"
)

// BenchmarkOneBackend changes one backend of one service among many.
func BenchmarkOneBackend(b *testing.B) {
	need.Feature(b, "nft", nft.Probe(context.Background()))
	for _, services := range []int{10, 200} {
		b.Run(fmt.Sprintf("%d services", services), func(b *testing.B) {
			ns := room(b, fmt.Sprintf("scale%d", services))
			d, wish := nft.New(), lb.Desired{Namespace: ns}
			for i := range services {
				s := lb.Service{Front: lb.Front{Addr: netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})}, Name: fmt.Sprintf("s%d", i)}
				for j := range 10 {
					s.Backends = append(s.Backends, lb.Backend{Addr: netip.AddrFrom4([4]byte{10, 2, byte(i), byte(j)}), Task: fmt.Sprintf("s%d.%d", i, j)})
				}
				wish.Services = append(wish.Services, s)
			}
			if _, err := d.Apply(context.Background(), wish); err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			for i := range b.N {
				wish.Services[0].Backends[0].Draining = i%2 == 0
				if n, err := d.Apply(context.Background(), wish); n != 1 || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}
