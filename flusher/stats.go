package flusher

import (
	"maps"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/headpond/headpond/buffer"
)

// lagWindow is a histogram of durability lag over the last one to two windows.
type lagWindow struct {
	now, before *hdrhistogram.Histogram // milliseconds
	turned      time.Time
}

const lagWindowTime = 30 * time.Second

func newLagHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, (24 * time.Hour).Milliseconds(), 2)
}

func (w *lagWindow) turn(now time.Time) {
	if w.now == nil {
		w.now, w.before, w.turned = newLagHistogram(), newLagHistogram(), now
		return
	}
	for range 2 {
		if now.Sub(w.turned) < lagWindowTime {
			return
		}
		w.now, w.before = w.before, w.now
		w.now.Reset()
		w.turned = w.turned.Add(lagWindowTime)
	}
	w.turned = now
}

func (w *lagWindow) record(lag time.Duration, rows int64, now time.Time) {
	w.turn(now)
	_ = w.now.RecordValues(min(max(lag.Milliseconds(), 1), (24*time.Hour).Milliseconds()-1), rows)
}

func (w *lagWindow) fill(t *buffer.FlushStats, now time.Time) {
	w.turn(now)
	h := newLagHistogram()
	h.Merge(w.now)
	h.Merge(w.before)
	t.LagRows = h.TotalCount()
	if t.LagRows == 0 {
		return
	}
	t.LagP50 = float64(h.ValueAtQuantile(50))
	t.LagP99 = float64(h.ValueAtQuantile(99))
	t.LagP999 = float64(h.ValueAtQuantile(99.9))
}

// board collects the stats. Safe for concurrent use.
type board struct {
	mu      sync.Mutex
	workers []buffer.WorkerStats
	tables  map[string]*tableBoard
}

type tableBoard struct {
	buffer.FlushStats
	lag lagWindow
}

// failed counts a batch that is tried again.
func (t *tableBoard) failed(c Class) {
	t.Failures++
	if t.Retries == nil {
		t.Retries = make(map[string]int64)
	}
	t.Retries[string(c)]++
}

func newBoard(workers int) *board {
	b := &board{workers: make([]buffer.WorkerStats, workers), tables: make(map[string]*tableBoard)}
	for i := range b.workers {
		b.workers[i] = buffer.WorkerStats{State: "idle", Since: time.Now()}
	}
	return b
}

func (b *board) worker(i int, state, tbl string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.workers[i] = buffer.WorkerStats{State: state, Table: tbl, Since: time.Now()}
}

func (b *board) table(name string, f func(*tableBoard)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.tables[name]
	if t == nil {
		t = &tableBoard{}
		b.tables[name] = t
	}
	f(t)
}

func (b *board) stats() buffer.FlusherStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := buffer.FlusherStats{At: time.Now(), Workers: append([]buffer.WorkerStats(nil), b.workers...), Tables: make(map[string]buffer.FlushStats, len(b.tables))}
	now := time.Now()
	for name, t := range b.tables {
		t.lag.fill(&t.FlushStats, now)
		s.Tables[name] = t.FlushStats
		if t.Retries != nil {
			shown := s.Tables[name]
			shown.Retries = maps.Clone(t.Retries)
			s.Tables[name] = shown
		}
	}
	return s
}
