package api

import (
	"context"
	"math"
	"time"

	"github.com/headpond/headpond/buffer"
)

// told is what the pages were told.
type told struct {
	total  point
	tables map[string]point
	quiet  bool // nothing waits, comes, goes or is read, and all are there
}

// tell makes of a reading what the pages are told: a point of the history, what
// happened since the one before, and, while somebody listens, the whole status.
func (s *Server) tell(ctx context.Context, r *survey) told {
	s.notice(ctx, r)
	r.flushers = s.diary.alive(r.flushers)
	reads := s.rowReads()
	var before *moment
	if window := s.moments.within(r.at, rateWindow); len(window) > 0 {
		before = window[len(window)-1]
	}
	total, tables := s.pointsOf(r, before, reads)
	if r.redis == nil {
		s.moments.add(momentOf(r, reads), r.lines)
	}
	var st *status
	if s.streams.listeners() > 0 {
		st = s.statusOf(ctx, r, s.recentLetterCounts)
	}
	s.publish(&total, tables, st)
	quiet := r.redis == nil && r.postgres == nil && total[colBacklogRows] == 0 && total[colIn] == 0 && total[colOut] == 0 && total[colReads] == 0
	return told{total, tables, quiet}
}

// pointsOf a reading. What can only be told by Redis is unknown when it is away,
// but that what waited then waits still.
func (s *Server) pointsOf(r *survey, before *moment, reads map[string]rowReads) (total point, tables map[string]point) {
	lines := r.lines
	if r.redis != nil {
		last, at := s.moments.lines()
		lines = aged(last, r.at.Sub(at))
	}
	tables = make(map[string]point, len(lines))
	for name, of := range lines {
		p := unknownPoint()
		p[colOldest] = float64(oldest(of))
		if r.redis == nil {
			b := bookOf(of)
			p.stand(&b)
			if before != nil {
				if was, known := before.tables[name]; known {
					p.move(&b, &was, r.at.Sub(before.at).Seconds())
				}
			}
			p.flushed(name, r.flushers)
		}
		if before != nil {
			p.read(reads[name], before.reads[name], r.at.Sub(before.at).Seconds())
		}
		tables[name] = p
	}
	total = sumOf(tables)
	if before != nil {
		total.read(sumReads(reads), sumReads(before.reads), r.at.Sub(before.at).Seconds())
	}
	return total, tables
}

func (p *point) stand(b *Book) {
	p[colBacklogRows], p[colBacklogBytes] = float64(b.Pending), float64(b.Bytes)
	if b.Pending == 0 {
		p[colTimeToEmpty] = 0
	}
}

func (p *point) move(b, was *Book, seconds float64) {
	if seconds <= 0 {
		return
	}
	rate := func(n int64) float64 { return tenths(max(float64(n), 0) / seconds) }
	p[colIn], p[colOut] = rate(b.Accepted-was.Accepted), rate(b.done()-was.done())
	p[colSaved] = rate(b.Coalesced - was.Coalesced)
	if left := p[colOut] - p[colIn]; b.Pending > 0 && left > 0 {
		p[colTimeToEmpty] = tenths(float64(b.Pending) / left)
	}
}

// flushed takes what the flushers say of a table: of the last seconds, the worst.
func (p *point) flushed(name string, flushers []buffer.FlusherStats) {
	for i := range flushers {
		f := flushers[i].Tables[name]
		if f.NowRows > 0 {
			p[colLagP50], p[colLagP99] = larger(p[colLagP50], f.NowP50), larger(p[colLagP99], f.NowP99)
		}
		if f.BatchRows > 0 {
			p[colBatchRows] = larger(p[colBatchRows], float64(f.BatchRows))
		}
	}
}

func (p *point) read(now, was rowReads, seconds float64) {
	n := float64(now.all - was.all)
	if seconds <= 0 || n < 0 {
		return
	}
	if p[colReads] = tenths(n / seconds); n > 0 {
		p[colHitRate] = math.Round(1000*float64(now.hits-was.hits)/n) / 1000
		p[colEffective] = math.Round(float64(now.nanos-was.nanos)/n/1000) / 1000 // ms, to the µs
	}
}

// larger of two, of which the first may be unknown.
func larger(a, b float64) float64 {
	if math.IsNaN(a) {
		return b
	}
	return max(a, b)
}

func tenths(v float64) float64 { return math.Round(10*v) / 10 }

// sumOf is all tables together: sums of what can be added, the worst of the rest.
// Of the time to empty nothing is known as long as one table's is not.
func sumOf(tables map[string]point) point {
	total := unknownPoint()
	stuck := false
	for _, p := range tables {
		for c, v := range p {
			switch {
			case column(c) == colTimeToEmpty && math.IsNaN(v) && p[colBacklogRows] > 0:
				stuck = true
			case math.IsNaN(v):
			case summed[column(c)] && !math.IsNaN(total[c]):
				total[c] += v
			default:
				total[c] = larger(total[c], v)
			}
		}
	}
	if stuck {
		total[colTimeToEmpty] = math.NaN()
	}
	return total
}

var summed = [columns]bool{colIn: true, colOut: true, colBacklogRows: true, colBacklogBytes: true, colSaved: true, colReads: true}

// rowReads of all tables.
func (s *Server) rowReads() map[string]rowReads {
	out := make(map[string]rowReads)
	for _, c := range s.CacheStats() {
		out[c.Table] = rowReads{
			hits: c.Hits, all: c.Hits + c.Misses, nanos: int64((c.HitSeconds + c.MissSeconds) * float64(time.Second)),
		}
	}
	return out
}

func sumReads(of map[string]rowReads) (all rowReads) {
	for _, c := range of {
		all.hits += c.hits
		all.all += c.all
		all.nanos += c.nanos
	}
	return all
}
