package main

import (
	"fmt"
	"strings"
)

// headings of the values, and how their medians are written.
var headings = map[string]struct{ text, format string }{
	valueRequests:   {"requests/s", "%.0f"},
	valueConnects:   {"new connections/s", "%.0f"},
	valueThroughput: {"Gbit/s", "%.2f"},
	valueP50:        {"p50 µs", "%.0f"},
	valueP99:        {"p99 µs", "%.0f"},
	valueCPU:        {"CPU µs/request", "%.1f"},
}

// table writes a report in Markdown.
func table(r report) string {
	var b strings.Builder
	b.WriteString(r.Machine.words() + "\n\n")
	fmt.Fprintf(&b, "%d rounds, %s for each figure, %d connections; p50 and p99 with one connection. In brackets: the median of the ratios to the "+
		"first row in the same round, and the interval of that median (95 %%).\n", r.Rounds, r.Slice, r.Conns)
	for _, s := range r.Scenarios {
		fmt.Fprintf(&b, "\n### %s: %s\n\n| |", s.Name, s.What)
		for _, value := range valueNames {
			b.WriteString(" " + headings[value].text + " |")
		}
		b.WriteString("\n|---|" + strings.Repeat("---|", len(valueNames)) + "\n")
		for i, c := range s.Contenders {
			fmt.Fprintf(&b, "| %s |", c.Name)
			for _, value := range valueNames {
				b.WriteString(" " + cell(c.Values[value], headings[value].format, i == 0) + " |")
			}
			b.WriteString("\n")
		}
	}
	if len(r.Goals) > 0 {
		b.WriteString("\n### Ratios that are aimed at\n\n| goal | what | median | interval |\n|---|---|---|---|\n")
		for _, g := range r.Goals {
			fmt.Fprintf(&b, "| %s | %s | %.3f | %.3f–%.3f |\n", g.Name, g.What, g.Figure.Ratio, g.Figure.Low, g.Figure.High)
		}
	}
	if r.Failed > 0 {
		fmt.Fprintf(&b, "\n%d connections failed, the first: %s\n", r.Failed, r.Failure)
	}
	return b.String()
}

func cell(f figure, format string, first bool) string {
	text := fmt.Sprintf(format, f.Median)
	if first {
		return text
	}
	return fmt.Sprintf("%s (%.2f, %.2f–%.2f)", text, f.Ratio, f.Low, f.High)
}

func (m machine) words() string {
	where := fmt.Sprintf("%s: Linux %s, %d × %s, %s; balancer of the kernel: %s; HAProxy %s; load average %s before and %s after",
		m.When, m.Kernel, m.CPUs, m.CPU, m.Memory, m.Balancer, m.HAProxy, m.LoadBefore, m.LoadAfter)
	if m.Emulated {
		where += "; emulated, so only the ratios mean something"
	}
	return where + "."
}
