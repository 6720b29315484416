package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Measures of the picture.
const (
	pictureWidth = 1000
	panelHeight  = 230
	headHeight   = 92
	plotTop      = 34
	plotHeight   = 150
	plotLeft     = 56
	groupGap     = 26
)

// shown are the values of the picture: more is better in each.
var shown = []struct {
	value, text string
	inverse     bool
}{
	{valueRequests, "requests/s", false},
	{valueConnects, "new connections/s", false},
	{valueThroughput, "throughput", false},
	{valueP50, "1 / p50", true},
	{valueCPU, "requests per CPU second", true},
}

// colours by contender.
var colours = map[string]string{
	nameDirect: "#8a8f98", nameRaw: "#c9a227", nameProxy: "#b4532a", nameSwarm: "#5b7db1",
	nameOverlay: "#8cc5a8", nameShoal: "#1b7f5c", nameHosts: "#3d4148",
	nameOne: "#b7a5d6", nameMany: "#6a4fa3",
}

// names are all contenders in the order of the legend.
var names = []string{nameDirect, nameRaw, nameProxy, nameSwarm, nameOverlay, nameShoal, nameHosts, nameOne, nameMany}

// picture draws the ratios of a report: a panel for each scenario, a group of
// bars for each value, a line through each bar's end for the interval.
func picture(r report) string {
	var b strings.Builder
	height := headHeight + panelHeight*len(r.Scenarios)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12" fill="#222">`+"\n", pictureWidth, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", pictureWidth, height)
	writeText(&b, 16, 26, "start", "16", "Ratio to the direct way, more is better")
	writeText(&b, 16, 46, "start", "11", fmt.Sprintf("%s, Linux %s, %d × %s, %s; %d rounds of %s, medians of paired ratios, 95 %% intervals",
		r.Machine.When, r.Machine.Kernel, r.Machine.CPUs, r.Machine.CPU, r.Machine.Balancer, r.Rounds, r.Slice))
	x := 16.0
	for _, name := range names {
		fmt.Fprintf(&b, `<rect x="%.0f" y="62" width="12" height="12" fill="%s"/>`, x, colours[name])
		writeText(&b, x+17, 72, "start", "12", name)
		x += 40 + 6.2*float64(len(name))
	}
	for i, s := range r.Scenarios {
		panel(&b, s, float64(headHeight+i*panelHeight))
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func writeText(b *strings.Builder, x, y float64, anchor, size, text string) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" font-size="%s">%s</text>`+"\n", x, y, anchor, size, html.EscapeString(text))
}

// bar is a ratio with its interval, turned round where less is better.
func bar(f figure, inverse bool) (ratio, low, high float64) {
	if !inverse {
		return f.Ratio, f.Low, f.High
	}
	if f.Ratio <= 0 || f.Low <= 0 || f.High <= 0 {
		return 0, 0, 0
	}
	return 1 / f.Ratio, 1 / f.High, 1 / f.Low
}

func panel(b *strings.Builder, s scenarioReport, top float64) {
	highest := 1.1
	for _, c := range s.Contenders {
		for _, v := range shown {
			ratio, _, _ := bar(c.Values[v.value], v.inverse)
			highest = max(highest, ratio*1.05)
		}
	}
	step := 0.25
	if highest > 2 {
		step = 0.5
	}
	base := top + plotTop + plotHeight
	y := func(ratio float64) float64 { return base - plotHeight*math.Min(ratio, highest)/highest }
	writeText(b, 16, top+20, "start", "14", s.Name+": "+s.What)
	for tick := 0.0; tick <= highest; tick += step {
		colour := "#e3e5e8"
		if tick == 1 {
			colour = "#555"
		}
		fmt.Fprintf(b, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="%s"/>`+"\n", plotLeft, pictureWidth-16, y(tick), y(tick), colour)
		writeText(b, plotLeft-6, y(tick)+4, "end", "11", fmt.Sprintf("%.2f", tick))
	}
	group := float64(pictureWidth-16-plotLeft) / float64(len(shown))
	width := (group - groupGap) / float64(len(s.Contenders))
	for g, v := range shown {
		left := plotLeft + float64(g)*group + groupGap/2
		for i, c := range s.Contenders {
			ratio, low, high := bar(c.Values[v.value], v.inverse)
			x := left + float64(i)*width
			fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"><title>%s: %.3f (%.3f–%.3f)</title></rect>`+"\n",
				x+1, y(ratio), width-2, base-y(ratio), colours[c.Name], html.EscapeString(c.Name), ratio, low, high)
			fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="#111"/>`+"\n", x+width/2, x+width/2, y(low), y(high))
		}
		writeText(b, left+(group-groupGap)/2, base+18, "middle", "12", v.text)
	}
}
