package api

import (
	"math"
	"slices"
	"sync"
	"time"

	"github.com/headpond/headpond/buffer"
)

// momentsKept are seconds: those of the windows, and what comes late.
const momentsKept = 8

// moment is how all tables stood, for what compares now with a little while ago.
type moment struct {
	at     time.Time
	tables map[string]Book
	places map[buffer.Place]standing
	reads  map[string]rowReads
}

// standing is how far a partition was.
type standing struct{ seq, watermark uint64 }

// rowReads is what reads of rows came to, since this process began.
type rowReads struct {
	hits, all int64
	nanos     int64
}

// moments are the last readings, oldest first. Safe for concurrent use.
type moments struct {
	mu   sync.Mutex                 // guards all
	all  []*moment                  // never changed in place
	last map[string][]partitionLine // of the last of them
}

func (m *moments) add(now *moment, lines map[string][]partitionLine) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.all) >= momentsKept {
		m.all = slices.Delete(slices.Clone(m.all), 0, len(m.all)-momentsKept+1)
	}
	m.all, m.last = append(m.all, now), aged(lines, 0) // the lines are changed by who made them
}

// within gives those of the last span, oldest first.
func (m *moments) within(now time.Time, span time.Duration) []*moment {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, one := range m.all {
		if now.Sub(one.at) <= span {
			return slices.Clone(m.all[i:])
		}
	}
	return nil
}

// lines that were read last, and when; nil when none were.
func (m *moments) lines() (map[string][]partitionLine, time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.all) == 0 {
		return nil, time.Time{}
	}
	return m.last, m.all[len(m.all)-1].at
}

func momentOf(r *survey, reads map[string]rowReads) *moment {
	m := &moment{at: r.at, tables: booksOf(r.lines), places: make(map[buffer.Place]standing), reads: reads}
	for _, of := range r.lines {
		for i := range of {
			m.places[of[i].place] = standing{of[i].Seq, of[i].Watermark}
		}
	}
	return m
}

// partitionRates notes how fast each partition fills and empties.
func (m *moments) partitionRates(lines map[string][]partitionLine, now time.Time) {
	window := m.within(now, rateWindow)
	if len(window) == 0 || now.Sub(window[0].at) < historyStep/2 {
		return
	}
	before, seconds := window[0], now.Sub(window[0].at).Seconds()
	for _, of := range lines {
		for i := range of {
			l := &of[i]
			if was, known := before.places[l.place]; known {
				l.Rates = rateStatus{
					In:  math.Round(float64(l.Seq-min(was.seq, l.Seq)) / seconds),
					Out: math.Round(float64(l.Watermark-min(was.watermark, l.Watermark)) / seconds),
				}
			}
		}
	}
}

// rateWindow is what rates that follow the moment are taken over.
const rateWindow = 5 * time.Second
