package main

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

func TestInterval(t *testing.T) {
	up := func(n int) (values []float64) {
		for i := range n {
			values = append(values, float64((i*7)%n+1)) // 1 to n in some order, for n that 7 does not divide
		}
		return values
	}
	// The ranks are those of the tables of the sign test at 5 %.
	for _, c := range []struct {
		n                 int
		middle, low, high float64
	}{
		{1, 1, 1, 1}, {2, 1.5, 1, 2}, {5, 3, 1, 5}, {6, 3.5, 1, 6}, {8, 4.5, 1, 8}, {9, 5, 2, 8}, {15, 8, 4, 12}, {20, 10.5, 6, 15}, {25, 13, 8, 18},
	} {
		middle, low, high := interval(up(c.n))
		if middle != c.middle || low != c.low || high != c.high {
			t.Errorf("n=%d: %v %v %v, want %+v", c.n, middle, low, high, c)
		}
	}
	if m, l, h := interval(nil); m != 0 || l != 0 || h != 0 {
		t.Error(m, l, h)
	}
}

func twoRounds() []round {
	a, b := key{"vip-local", nameDirect, valueRequests}, key{"vip-local", nameShoal, valueRequests}
	return []round{{values: map[key]float64{a: 100, b: 50}}, {values: map[key]float64{a: 10, b: 20}}, {values: map[key]float64{a: 7}}}
}

func TestCompare(t *testing.T) {
	f := compare(twoRounds(), key{"vip-local", nameShoal, valueRequests}, key{"vip-local", nameDirect, valueRequests})
	if f.Rounds != 2 || f.Median != 35 || f.Ratio != 1.25 || f.Low != 0.5 || f.High != 2 {
		t.Errorf("%+v", f)
	}
	if f := compare(nil, key{}, key{}); f != (figure{}) {
		t.Errorf("%+v", f)
	}
}

func TestTableAndPicture(t *testing.T) {
	s := scenario{Name: "vip-local", What: "a < b", contenders: []contender{{Name: nameDirect}, {Name: nameShoal}}}
	rounds := twoRounds()
	rounds[0].failed, rounds[0].words = map[way]int{{"vip-local", nameShoal}: 3}, "refused"
	r := summarize(options{}, machine{Kernel: "6.1", CPU: "a & b"}, []scenario{s}, rounds)
	text := table(r)
	for _, want := range []string{"35 (1.25, 0.50–2.00)", "vip-local: a < b", "Linux 6.1", "3 connections failed, the first: refused"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if err := r.whole(); err == nil || !strings.Contains(err.Error(), "vip-local, direct: no connections") {
		t.Error(err)
	}
	for decoder := xml.NewDecoder(strings.NewReader(picture(r))); ; {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if ratio, low, high := bar(figure{Ratio: 2, Low: 1, High: 4}, true); ratio != 0.5 || low != 0.25 || high != 1 {
		t.Error(ratio, low, high)
	}
	if ratio, _, _ := bar(figure{}, true); math.IsInf(ratio, 0) {
		t.Error(ratio)
	}
}
