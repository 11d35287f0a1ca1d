package api

import (
	"context"
	"sync"
	"time"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// survey is what Redis, Postgres and the flushers say at one moment.
type survey struct {
	at       time.Time
	lines    map[string][]partitionLine // nil when Redis did not answer
	flushers []buffer.FlusherStats      // that report; none when Redis did not answer
	pauses   map[string]buffer.Pause
	redis    error // why there are no lines
	postgres error // why Postgres' side is as it was said last
}

// survey asks all of them, each for as long as patience.
func (s *Server) survey(ctx context.Context, patience time.Duration) *survey {
	r := &survey{}
	var asked sync.WaitGroup
	asked.Go(func() {
		asking, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		r.flushers, _ = s.buffer.Flushers(asking) // that Redis is away the other one tells
		r.pauses, _ = s.buffer.Pauses(asking)
	})
	r.lines, r.redis, r.postgres = s.readLedger(ctx, patience)
	if r.redis == nil {
		asking, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		r.at = time.Now()
		r.redis = orLate(asking, s.age(asking, r.lines, r.at))
	}
	if r.redis != nil {
		r.lines = nil
	}
	asked.Wait()
	r.at = time.Now()
	return r
}

// head is the first row of a partition that waits. While the watermark stands
// still it is the same row, however many come behind it, and is not read again.
type head struct {
	after    table.ID
	epoch    uint64 // of the log
	accepted time.Time
}

// age notes how long the oldest waiting row of each partition has waited.
func (s *Server) age(ctx context.Context, lines map[string][]partitionLine, now time.Time) error {
	heads := make(map[buffer.Place]head)
	var unknown []buffer.Place
	var after []table.ID
	var epochs []uint64
	s.books.mu.Lock()
	for _, of := range lines {
		for i := range of {
			l := &of[i]
			if l.BacklogRows == 0 {
				continue
			}
			if h, known := s.books.heads[l.place]; known && h.after == l.progress.Watermark && h.epoch == l.Epoch {
				heads[l.place] = h
			} else {
				unknown, after, epochs = append(unknown, l.place), append(after, l.progress.Watermark), append(epochs, l.Epoch)
			}
		}
	}
	s.books.mu.Unlock()
	times, err := s.buffer.Oldest(ctx, unknown, after)
	if err != nil {
		return err
	}
	for i, p := range unknown {
		if !times[i].IsZero() {
			heads[p] = head{after[i], epochs[i], times[i]}
		}
	}
	for _, of := range lines {
		for i := range of {
			if h, waits := heads[of[i].place]; waits {
				of[i].OldestMS = max(now.Sub(h.accepted).Milliseconds(), 0) // clocks may disagree
			}
		}
	}
	s.books.mu.Lock()
	s.books.heads = heads
	s.books.mu.Unlock()
	return nil
}

// oldest of the rows of a table that wait.
func oldest(lines []partitionLine) (ms int64) {
	for i := range lines {
		ms = max(ms, lines[i].OldestMS)
	}
	return ms
}

// aged is what was read so long ago, when nothing can be read now: nothing has
// been committed since, as far as anybody knows.
func aged(lines map[string][]partitionLine, ago time.Duration) map[string][]partitionLine {
	out := make(map[string][]partitionLine, len(lines))
	for name, of := range lines {
		now := append([]partitionLine(nil), of...)
		for i := range now {
			if now[i].BacklogRows > 0 {
				now[i].OldestMS += ago.Milliseconds()
			}
		}
		out[name] = now
	}
	return out
}
