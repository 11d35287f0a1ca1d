package flusher

import (
	"maps"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/headpond/headpond/buffer"
)

// lagWindow is a histogram of durability lag over the last one to two times its
// span.
type lagWindow struct {
	span        time.Duration
	now, before *hdrhistogram.Histogram // milliseconds
	turned      time.Time
}

// Spans of a lagWindow: what tells how things are, and what moves on a chart.
const (
	lagWindowTime = 30 * time.Second
	lagNowTime    = 2 * time.Second
)

func newLagHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, (24 * time.Hour).Milliseconds(), 2)
}

func (w *lagWindow) turn(now time.Time) {
	if w.now == nil {
		w.now, w.before, w.turned = newLagHistogram(), newLagHistogram(), now
		return
	}
	for range 2 {
		if now.Sub(w.turned) < w.span {
			return
		}
		w.now, w.before = w.before, w.now
		w.now.Reset()
		w.turned = w.turned.Add(w.span)
	}
	w.turned = now
}

func (w *lagWindow) record(lag time.Duration, rows int64, now time.Time) {
	w.turn(now)
	_ = w.now.RecordValues(min(max(lag.Milliseconds(), 1), (24*time.Hour).Milliseconds()-1), rows)
}

// last gives what was recorded lately; nil for nothing.
func (w *lagWindow) last(now time.Time) *hdrhistogram.Histogram {
	w.turn(now)
	if w.now.TotalCount()+w.before.TotalCount() == 0 {
		return nil
	}
	h := newLagHistogram()
	h.Merge(w.now)
	h.Merge(w.before)
	return h
}

func (t *tableBoard) fill(now time.Time) {
	t.LagRows, t.NowRows = 0, 0
	if h := t.lag.last(now); h != nil {
		t.LagRows = h.TotalCount()
		t.LagP50 = float64(h.ValueAtQuantile(50))
		t.LagP99 = float64(h.ValueAtQuantile(99))
		t.LagP999 = float64(h.ValueAtQuantile(99.9))
	}
	if h := t.lagNow.last(now); h != nil {
		t.NowRows = h.TotalCount()
		t.NowP50 = float64(h.ValueAtQuantile(50))
		t.NowP99 = float64(h.ValueAtQuantile(99))
	}
}

// board collects the stats. Safe for concurrent use.
type board struct {
	mu      sync.Mutex
	workers []buffer.WorkerStats
	tables  map[string]*tableBoard

	commit time.Time // the last
	err    string    // of the last batch that failed; empty when the one after it did not
}

type tableBoard struct {
	buffer.FlushStats
	lag, lagNow lagWindow
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

// took: a worker begins with a job.
func (b *board) took(i int, j *job) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.workers[i] = buffer.WorkerStats{State: "reading", Table: j.table.Name, Partitions: j.partitions, Since: time.Now()}
}

// does: a worker goes on with its job, rows of it when that is known now.
func (b *board) does(i int, state string, rows int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w := &b.workers[i]
	w.State, w.Since, w.Rows = state, time.Now(), max(w.Rows, rows)
}

// ended: a worker is done with its job.
func (b *board) ended(i int, r *result) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.workers[i] = buffer.WorkerStats{State: "idle", Since: now}
	switch {
	case r.err != nil && ClassOf(r.err) != PutOff:
		b.err = r.err.Error()
	case r.commit:
		b.commit, b.err = now, ""
	}
}

func (b *board) table(name string, f func(*tableBoard)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.tables[name]
	if t == nil {
		t = &tableBoard{lag: lagWindow{span: lagWindowTime}, lagNow: lagWindow{span: lagNowTime}}
		b.tables[name] = t
	}
	f(t)
}

func (b *board) stats() buffer.FlusherStats {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	s := buffer.FlusherStats{
		At: now, Workers: append([]buffer.WorkerStats(nil), b.workers...), Tables: make(map[string]buffer.FlushStats, len(b.tables)),
		LastCommit: b.commit, LastError: b.err,
	}
	for name, t := range b.tables {
		t.fill(now)
		s.Tables[name] = t.FlushStats
		if t.Retries != nil {
			shown := s.Tables[name]
			shown.Retries = maps.Clone(t.Retries)
			s.Tables[name] = shown
		}
	}
	return s
}
