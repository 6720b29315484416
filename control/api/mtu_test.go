package api

import (
	"errors"
	"testing"
)

func TestNetworkMTU(t *testing.T) {
	for _, tt := range []struct {
		text string
		ipv6 bool
		want int
	}{{"1450", false, 1450}, {"576", false, 576}, {"8950", true, 8950},
		{"575", false, 0}, {"1279", true, 0}, {"-1", false, 0}, {"", false, 0}, {"1e3", false, 0}, {"70000", false, 0}} {
		got, err := NetworkMTU(map[string]string{MTUOption: tt.text}, tt.ipv6)
		if got != tt.want || err == nil != (tt.want != 0) {
			t.Errorf("%q: %d, %v; want %d", tt.text, got, err, tt.want)
		}
		if err != nil && KindOf(err) != Invalid {
			t.Errorf("%q: %v is no error of the caller's", tt.text, errors.Unwrap(err))
		}
	}
	if got, err := NetworkMTU(nil, false); got != 0 || err != nil {
		t.Errorf("without the option: %d, %v", got, err)
	}
}
