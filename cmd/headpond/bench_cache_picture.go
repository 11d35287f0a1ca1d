package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
	"strings"
)

// The picture is a white card, so that it reads the same on a dark page. Its
// colours are those of Okabe and Ito, which the colour-blind can tell apart.
const (
	pictureWidth  = 900
	barsLeft      = 188 // where the bars begin
	barsWidth     = 252
	barHeight     = 12
	rowHeight     = 52
	pictureTop    = 84 // of both plots
	curvesLeft    = 578
	curvesWidth   = 296
	curvesBottom  = 330
	pictureStyle  = "text{font:11px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#222}.t{font-size:13px;font-weight:600}.n{font-weight:600}.s{fill:#666;font-size:10px}.e{text-anchor:end}.m{text-anchor:middle}"
	hitColour     = "#009E73"
	missColour    = "#E69F00"
	writeColour   = "#0072B2"
	gridColour    = "#E4E4E4"
	pictureBorder = "#D0D0D0"
)

// curveColours and curveMarks, in the order of the patterns.
var (
	curveColours = []string{"#000000", "#D55E00", "#56B4E9", "#CC79A7", "#E69F00", "#009E73", "#0072B2"}
	curveMarks   = []string{
		"M-3.5 -3.5h7v7h-7z", "M0 -4.5l4.5 4.5l-4.5 4.5l-4.5 -4.5z", "M-4 3.5l4 -7.5l4 7.5z", "M-4 -3.5l4 7.5l4 -7.5z",
		"M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z", "M-4 -1.3h2.7v-2.7h2.6v2.7h2.7v2.6h-2.7v2.7h-2.6v-2.7h-2.7z", "M0 -4.5l4.3 3.1l-1.6 5.1h-5.4l-1.6 -5.1z",
	}
)

// picture is an SVG that grows.
type picture struct{ bytes.Buffer }

func (p *picture) put(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

func (p *picture) text(x, y float64, class, text string) {
	p.put(`<text x="%.1f" y="%.1f" class="%s">%s</text>`, x, y, class, html.EscapeString(text))
}

func (p *picture) line(x1, y1, x2, y2 float64) {
	p.put(`<path d="M%.1f %.1fL%.1f %.1f" stroke="%s"/>`, x1, y1, x2, y2, gridColour)
}

// logScale places values between the logarithms of two others.
type logScale struct{ low, high, from, to float64 }

// newLogScale for values that lie well inside: bars begin at a power of ten,
// not too close to the shortest of them.
func newLogScale(values []float64, bars bool, from, to float64) logScale {
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if v > 0 {
			low, high = min(low, v), max(high, v)
		}
	}
	if low > high {
		low, high = 0.1, 1
	}
	s := logScale{math.Log10(low / 1.3), math.Log10(high * 1.3), from, to}
	if bars {
		s.low = math.Floor(math.Log10(low / 1.6))
	}
	return s
}

func (s logScale) at(v float64) float64 {
	share := (math.Log10(v) - s.low) / (s.high - s.low)
	return s.from + min(max(share, 0), 1)*(s.to-s.from)
}

// marks are the powers of ten on the scale, times some factors.
func (s logScale) marks(factors ...float64) (out []float64) {
	for e := math.Floor(s.low); e <= s.high; e++ {
		for _, f := range factors {
			if at := e + math.Log10(f); at >= s.low && at <= s.high {
				out = append(out, f*math.Pow(10, e))
			}
		}
	}
	return out
}

func markText(v float64) string { return fmt.Sprintf("%.3g ms", v) }

// drawCache gives the SVG.
func drawCache(r *cacheReport) []byte {
	p := &picture{}
	height := pictureTop + rowHeight*len(r.Patterns) + 56
	p.put(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" aria-label="Latency of caching patterns">`,
		pictureWidth, height, pictureWidth, height)
	p.put(`<style>%s</style>`, pictureStyle)
	p.put(`<rect x="0.5" y="0.5" width="%d" height="%d" rx="8" fill="#FFFFFF" stroke="%s"/>`, pictureWidth-1, height-1, pictureBorder)
	drawBars(p, r)
	drawCurves(p, r)
	postgres, _, _ := strings.Cut(r.Machine.Postgres, " ")
	foot := fmt.Sprintf("headpond bench cache, %s, %d cores, PostgreSQL %s, Redis %s with appendfsync %s; medians of rounds, logarithmic scales",
		r.Machine.At.Format("2006-01-02"), r.Machine.Cores, postgres, r.Machine.Redis, r.Machine.FSync)
	p.text(18, float64(height-14), "s", foot)
	p.put(`</svg>`)
	return p.Bytes()
}

// drawBars is the left half: what a read and a write take.
func drawBars(p *picture, r *cacheReport) {
	var all []float64
	for _, f := range r.Patterns {
		for _, b := range f.bars() {
			if b.ms != nil {
				all = append(all, *b.ms)
			}
		}
	}
	x := newLogScale(all, true, barsLeft, barsLeft+barsWidth)
	bottom := float64(pictureTop + rowHeight*len(r.Patterns))
	title := "Mean latency of a read and of a write"
	if r.SlowMS > 0 {
		title = fmt.Sprintf("Mean latency, PostgreSQL slowed by %g ms", r.SlowMS)
	}
	p.text(18, 28, "t", title)
	at := 18.0
	for _, b := range (&cacheFigure{}).bars() {
		p.put(`<rect x="%.1f" y="41" width="11" height="11" rx="2" fill="%s"/>`, at, b.colour)
		p.text(at+16, 51, "", b.name)
		at += 26 + 6.2*float64(len(b.name))
	}
	for _, v := range x.marks(1) {
		p.line(x.at(v), pictureTop-8, x.at(v), bottom)
		p.text(x.at(v), bottom+14, "s m", markText(v))
	}
	for i, f := range r.Patterns {
		top := float64(pictureTop + rowHeight*i)
		p.text(18, top+10, "n", f.Name)
		if f.Fault != "" {
			p.text(barsLeft+4, top+10, "s", "not measured")
			continue
		}
		p.text(18, top+24, "s", "stale at most "+staleText(f.Stale))
		p.text(18, top+37, "s", "lost with Redis "+f.lossText())
		for j, b := range f.bars() {
			y := top + float64(j*(barHeight+2))
			if b.ms == nil {
				p.text(barsLeft+4, y+10, "s", "–")
				continue
			}
			p.put(`<rect x="%d" y="%.1f" width="%.1f" height="%d" rx="2" fill="%s"/>`, barsLeft, y, max(x.at(*b.ms)-barsLeft, 1), barHeight, b.colour)
			p.text(x.at(*b.ms)+5, y+10, "", millis(b.ms))
		}
	}
}

type cacheBar struct {
	name, colour string
	ms           *float64
}

func (f *cacheFigure) bars() []cacheBar {
	var write *float64
	if f.Write1 != nil {
		write = &f.Write1.Mean
	}
	return []cacheBar{{"read, hit", hitColour, f.Hit}, {"read, miss", missColour, f.Miss}, {"write, 1 connection", writeColour, write}}
}

// drawCurves is the right half: the effective latency over the hit rate.
func drawCurves(p *picture, r *cacheReport) {
	var all []float64
	for _, f := range r.Patterns {
		for _, e := range f.Effective {
			all = append(all, e.Measured)
		}
		for _, v := range []*float64{f.Hit, f.Miss} {
			if v != nil {
				all = append(all, *v)
			}
		}
	}
	y := newLogScale(all, false, curvesBottom, pictureTop)
	x := func(rate float64) float64 { return curvesLeft + curvesWidth*rate }
	p.text(curvesLeft-46, 28, "t", "Effective latency of reads by hit rate")
	p.text(curvesLeft-46, 51, "", "lines: predicted, hit rate × hit + miss rate × miss")
	p.text(curvesLeft-46, 66, "", "marks: measured, Zipf-distributed reads")
	for _, v := range y.marks(1, 2, 5) {
		p.line(curvesLeft, y.at(v), curvesLeft+curvesWidth, y.at(v))
		p.text(curvesLeft-6, y.at(v)+4, "s e", markText(v))
	}
	for _, rate := range []float64{0, 0.25, 0.5, 0.75, 1} {
		p.line(x(rate), pictureTop, x(rate), curvesBottom)
		p.text(x(rate), curvesBottom+16, "s m", fmt.Sprintf("%.0f %%", 100*rate))
	}
	for i, f := range r.Patterns {
		if f.Miss != nil {
			drawCurve(p, &f, i, x, y.at)
		}
		at := float64(curvesBottom + 42 + 17*i)
		colour := curveColours[i%len(curveColours)]
		p.put(`<path d="M%d %.1fh26" stroke="%s" stroke-width="2"/>`, curvesLeft, at-4, colour)
		p.put(`<path d="%s" transform="translate(%d %.1f)" fill="%s"/>`, curveMarks[i%len(curveMarks)], curvesLeft+13, at-4, colour)
		p.text(curvesLeft+34, at, "", f.Name)
	}
}

func drawCurve(p *picture, f *cacheFigure, i int, x, y func(float64) float64) {
	colour, hit := curveColours[i%len(curveColours)], *f.Miss
	if f.Hit != nil {
		hit = *f.Hit
	}
	path := ""
	for step := range 101 {
		rate := float64(step) / 100
		command := "L"
		if step == 0 {
			command = "M"
		}
		path += fmt.Sprintf("%s%.1f %.1f", command, x(rate), y(effective(rate, hit, *f.Miss)))
	}
	p.put(`<path d="%s" fill="none" stroke="%s" stroke-width="1.6"/>`, path, colour)
	for _, e := range f.Effective {
		rate := e.Seen
		if f.Hit == nil {
			rate = e.Wanted // nothing hits, whatever a cache would
		}
		p.put(`<path d="%s" transform="translate(%.1f %.1f)" fill="%s" stroke="#FFFFFF" stroke-width="0.8"><title>%s, %.0f %% hits: %s measured, %s predicted</title></path>`,
			curveMarks[i%len(curveMarks)], x(rate), y(e.Measured), colour, html.EscapeString(f.Name), 100*rate, digits(e.Measured)+" ms", digits(e.Predicted)+" ms")
	}
}
