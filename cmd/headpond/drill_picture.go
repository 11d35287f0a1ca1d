package main

import (
	"fmt"
	"math"
	"strconv"
)

// The picture of a drill has three plots over one time axis, and a mark for each
// fault. It follows the page's colours, light or dark; those of the marks are by
// Okabe and Ito, and a SIGKILL has another shape than a SIGSTOP.
const (
	drillWidth      = 900
	drillLeft       = 64
	drillPlotWidth  = drillWidth - drillLeft - 20
	drillTop        = 92 // of the first plot
	drillPlotHeight = 96
	drillGap        = 34
	drillStyle      = `text{font:11px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#222}.t{font-size:14px;font-weight:600}.n{font-weight:600;paint-order:stroke;stroke:#FFF;stroke-width:4px}` +
		`.s{fill:#666;font-size:10px}.e{text-anchor:end}.m{text-anchor:middle}.card{fill:#FFF;stroke:#D0D0D0}.grid{stroke:#E4E4E4}` +
		`.lag{fill:#D55E0033;stroke:#D55E00}.log{fill:#0072B233;stroke:#0072B2}.ack{fill:#009E7333;stroke:#009E73}` +
		`@media(prefers-color-scheme:dark){text{fill:#E6E6E6}.n{stroke:#0D1117}.s{fill:#A8A8A8}.card{fill:#0D1117;stroke:#30363D}.grid{stroke:#2A3038}}`
)

// drillMarks are the colour and the shape of each kind of fault.
var drillMarks = map[drillFaultKind]struct{ colour, shape string }{
	killFlusher:  {"#0072B2", "M-4 -4l8 8M4 -4l-8 8"},
	killAPI:      {"#009E73", "M-4 -4l8 8M4 -4l-8 8"},
	killRedis:    {"#D55E00", "M-4 -4l8 8M4 -4l-8 8"},
	killPostgres: {"#CC79A7", "M-4 -4l8 8M4 -4l-8 8"},
	stopFlusher:  {"#0072B2", "M-2.5 -4v8M2.5 -4v8"},
	stopRedis:    {"#D55E00", "M-2.5 -4v8M2.5 -4v8"},
	stopPostgres: {"#CC79A7", "M-2.5 -4v8M2.5 -4v8"},
	fillBacklog:  {"#E69F00", "M-4 4h8v-8h-8z"},
}

// drillPlot is one of the three.
type drillPlot struct {
	title, class string
	top, most    float64
	value        func(before, s drillSample) float64
	mark         func(float64) string
}

// drawDrill gives the SVG.
func drawDrill(r *drillReport) []byte {
	p := &picture{}
	plots := drillPlots(r.Samples)
	bottom := plots[len(plots)-1].top + drillPlotHeight
	height := int(bottom) + 84
	p.put(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="Durability lag and backlog while everything is killed">`,
		drillWidth, height, drillWidth, height)
	p.put(`<style>%s</style>`, drillStyle)
	p.put(`<rect x="0.5" y="0.5" width="%d" height="%d" rx="8" class="card"/>`, drillWidth-1, height-1)
	p.text(18, 28, "t", fmt.Sprintf("%d faults under load: %s writes acknowledged, %d lost, %d applied twice", len(r.Events), grouped(r.Counts.Acknowledged), r.Verdict.Lost, r.Verdict.Duplicated))
	end := math.Max(r.Seconds, 1)
	if n := len(r.Samples); n > 0 {
		end = math.Max(end, r.Samples[n-1].At)
	}
	x := func(at float64) float64 { return drillLeft + drillPlotWidth*at/end }
	drawDrillFaults(p, r, x, bottom)
	for _, plot := range plots {
		plot.draw(p, r.Samples, x, end)
	}
	for at := 0.0; at <= end; at += drillStep(end) {
		p.text(x(at), bottom+16, "s m", fmt.Sprintf("%.0f s", at))
	}
	drawDrillLegend(p, r, bottom+40)
	foot := fmt.Sprintf("headpond drill --seed %d, %s, %d cores, %d writes/s offered; PostgreSQL %s and Redis with fsync of every write",
		r.Seed, r.Machine.At.Format("2006-01-02"), r.Machine.Cores, r.Rate, r.Machine.Postgres)
	p.text(18, float64(height-12), "s", foot)
	p.put(`</svg>`)
	return p.Bytes()
}

func drillPlots(samples []drillSample) []*drillPlot {
	plots := []*drillPlot{
		{title: "durability lag: age of the oldest acknowledged write that is not in PostgreSQL", class: "lag",
			value: func(_, s drillSample) float64 { return s.Lag }, mark: func(v float64) string { return fmt.Sprintf("%g s", v) }},
		{title: "backlog: acknowledged rows that are not in PostgreSQL", class: "log",
			value: func(_, s drillSample) float64 { return float64(s.Backlog) }, mark: func(v float64) string { return grouped(int64(v)) }},
		{title: "writes acknowledged per second", class: "ack",
			value: func(before, s drillSample) float64 {
				return float64(s.Acked-before.Acked) / math.Max(s.At-before.At, drillSampleEvery.Seconds())
			}, mark: func(v float64) string { return grouped(int64(v)) }},
	}
	for i, plot := range plots {
		plot.top = drillTop + float64(i)*(drillPlotHeight+drillGap)
		for _, point := range plot.points(samples) {
			plot.most = math.Max(plot.most, point[1])
		}
		plot.most = math.Max(plot.most*1.05, 0.1)
	}
	return plots
}

// points of a plot: samples are put together until there are about 600, and
// each point is the worst lag and backlog, and the mean rate.
func (d *drillPlot) points(samples []drillSample) (out [][2]float64) {
	every := max(1, len(samples)/600)
	if d.class == "ack" {
		every *= 3
	}
	for i := every; i < len(samples); i += every {
		v := d.value(samples[i-every], samples[i])
		if d.class != "ack" {
			for _, s := range samples[i-every+1 : i] {
				v = math.Max(v, d.value(drillSample{}, s))
			}
		}
		out = append(out, [2]float64{samples[i].At, v})
	}
	return out
}

func (d *drillPlot) draw(p *picture, samples []drillSample, x func(float64) float64, end float64) {
	bottom := d.top + drillPlotHeight
	y := func(v float64) float64 { return bottom - drillPlotHeight*v/d.most }
	p.text(drillLeft, d.top-8, "n", d.title)
	for v := 0.0; v <= d.most; v += drillStep(d.most * 2) {
		p.put(`<path d="M%d %.1fH%.1f" class="grid"/>`, drillLeft, y(v), x(end))
		p.text(drillLeft-6, y(v)+4, "s e", d.mark(v))
	}
	path := fmt.Sprintf("M%.1f %.1f", x(0), bottom)
	points := d.points(samples)
	for _, point := range points {
		path += fmt.Sprintf("L%.1f %.1f", x(point[0]), y(point[1]))
	}
	if n := len(points); n > 0 {
		path += fmt.Sprintf("L%.1f %.1f", x(points[n-1][0]), bottom)
	}
	p.put(`<path d="%sZ" class="%s" stroke-width="1"/>`, path, d.class)
}

// drillStep is a round number that divides a length into about eight parts.
func drillStep(length float64) float64 {
	ten := math.Pow(10, math.Floor(math.Log10(length/8)))
	for _, f := range []float64{1, 2, 5} {
		if length/(f*ten) <= 10 {
			return f * ten
		}
	}
	return 10 * ten
}

// drawDrillFaults draws a line through all plots for each fault, and its mark.
func drawDrillFaults(p *picture, r *drillReport, x func(float64) float64, bottom float64) {
	for i, e := range r.Events {
		m := drillMarks[e.Fault]
		p.put(`<g><title>%d: %s at %.1f s, lag normal after %.1f s</title>`, i+1, e.Fault, e.At, e.LagBack)
		p.put(`<path d="M%.1f %dV%.1f" stroke="%s" stroke-width="1" stroke-dasharray="2 3" opacity="0.7"/>`, x(e.At), drillTop-22, bottom, m.colour)
		p.put(`<path d="%s" transform="translate(%.1f %d)" fill="none" stroke="%s" stroke-width="2"/></g>`, m.shape, x(e.At), drillTop-30, m.colour)
	}
}

func drawDrillLegend(p *picture, r *drillReport, top float64) {
	at := 24.0
	for _, g := range r.recoveries() {
		m, text := drillMarks[g.kind], strconv.Itoa(g.times)+" × "+string(g.kind)
		if g.processes > g.times {
			text += fmt.Sprintf(" (%d processes)", g.processes)
		}
		wide := 26 + 5.9*float64(len(text))
		if at+wide > drillWidth-10 {
			at, top = 24, top+17
		}
		p.put(`<path d="%s" transform="translate(%.1f %.1f)" fill="none" stroke="%s" stroke-width="2"/>`, m.shape, at, top-4, m.colour)
		p.text(at+10, top, "", text)
		at += wide
	}
}
