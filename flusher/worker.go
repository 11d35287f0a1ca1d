package flusher

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// worker turns jobs into committed batches, one at a time.
type worker struct {
	id int
	f  *Flusher
}

// result of a job.
type result struct {
	job     *job
	remains map[int]left
	rows    int
	merged  int // of rows: written with another
	dead    int // of rows
	commit  bool
	unsure  bool // the commit is on one server alone
	took    time.Duration
	err     error
	trace   trace.Span // of the flush; nil when there is none
}

func (w *worker) do(ctx context.Context, j *job) result {
	w.f.board.took(w.id, j)
	r := result{job: j, remains: make(map[int]left)}
	start := time.Now()
	if r.err = w.f.unpaused(ctx, j); r.err == nil {
		t := w.f.traceFlush()
		r.err = w.flush(ctx, j, &r, t)
		t.end(r.err)
		r.trace = t.span
	}
	if r.err != nil && ClassOf(r.err) != PutOff {
		w.f.failed.note(j.table.Name, j.partitions, r.err)
	}
	r.took = time.Since(start)
	switch {
	case r.err != nil:
		w.f.observe.Flushed(j.table.Name, string(ClassOf(r.err)), 0, r.took)
	case r.commit:
		w.f.observe.Flushed(j.table.Name, "committed", r.rows, r.took)
	}
	w.f.board.ended(w.id, &r)
	return r
}

// flush makes one batch: look where the partitions stand, flush them, settle.
func (w *worker) flush(ctx context.Context, j *job, r *result, t *tracing) error {
	places := make([]buffer.Place, len(j.partitions))
	for i, p := range j.partitions {
		places[i] = buffer.Place{Table: j.table.Name, Partition: p}
	}
	tails, err := w.f.log.Tails(ctx, places)
	if err != nil {
		return err
	}
	stands := make(map[buffer.Place]buffer.Tail, len(tails))
	var todo []int
	for _, t := range tails {
		if t.Closed {
			r.remains[t.Place.Partition] = left{backlog: t.Backlog(), busy: true}
			continue
		}
		if t.Backlog() <= 0 {
			r.remains[t.Place.Partition] = left{}
			continue
		}
		stands[t.Place] = t
		todo = append(todo, t.Place.Partition)
		r.remains[t.Place.Partition] = left{backlog: t.Backlog(), busy: true} // until it is claimed
	}
	if len(todo) == 0 {
		return nil
	}
	if err := w.f.ripe(ctx, j); err != nil {
		return err
	}

	if err := FailLooked.Reach(); err != nil {
		return err
	}
	var picked atomic.Int64
	var torn []*torn
	load := func(ctx context.Context, claims []Claim) (parts []Part, err error) {
		began := time.Now()
		picked.Store(began.UnixMilli())
		parts, torn, err = w.load(ctx, claims, j, stands)
		if err == nil {
			t.read(ctx, j.table.Name, parts, began)
		}
		w.f.board.does(w.id, "copying", rowsOf(parts))
		return parts, err
	}
	report, err := w.f.store.Flush(ctx, Batch{
		Table: j.table.Name, Partitions: todo, Load: load, DatabaseWins: j.table.DatabaseWins,
		Doing:  func(state string) { w.f.board.does(w.id, state, 0); t.does(state) },
		Orphan: func(ctx context.Context, parent string) error { return w.f.orphan(ctx, j, parent) },
		Refuse: func(count, rows int, why string) error {
			return w.f.refuse(refused{table: j.table.Name, count: count, rows: rows, why: why})
		},
	})
	if err != nil {
		return err
	}
	defer t.committed(report, &w.f.failed)
	w.f.board.does(w.id, "settling", 0)
	t.does("settling")
	if err := FailCommitted.Reach(); err != nil {
		return err
	}
	if err := w.settle(ctx, j, r, report, stands, time.UnixMilli(picked.Load())); err != nil {
		return err
	}
	if err := FailSettled.Reach(); err != nil {
		return err
	}
	return w.reopen(ctx, torn)
}

// load reads what follows the claims, the rows shared out evenly. A partition
// whose log does not go on at its watermark gives nothing, and comes back beside
// the others' rows.
func (w *worker) load(ctx context.Context, claims []Claim, j *job, stands map[buffer.Place]buffer.Tail) ([]Part, []*torn, error) {
	parts := make([]Part, len(claims))
	gaps := make([]*torn, len(claims))
	var g errgroup.Group
	for i, c := range claims {
		g.Go(func() error {
			frames, err := w.f.log.Frames(ctx, c.Place, c.Watermark, max(j.rows/len(claims), 1), max(batchBytes/len(claims), 1))
			if err != nil {
				return err
			}
			parts[i] = Part{Claim: c}
			if gaps[i] = compare(c, stands[c.Place], frames); gaps[i] == nil {
				parts[i].Frames = j.mark.cut(c.Place, frames)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	return parts, slices.DeleteFunc(gaps, func(t *torn) bool { return t == nil }), nil
}

func rowsOf(parts []Part) (n int) {
	for i := range parts {
		n += parts[i].Rows()
	}
	return n
}

// settle tells the log what is committed now, and what was found committed
// already: by a worker that died before it could say so.
func (w *worker) settle(ctx context.Context, j *job, r *result, report *Report, stands map[buffer.Place]buffer.Tail, picked time.Time) error {
	var all []buffer.Settlement
	for i := range report.Parts {
		p := &report.Parts[i]
		dead := slices.Concat(report.Dead[p.Place], report.Dropped[p.Place])
		if before := stands[p.Place].Settled; before < p.Watermark.Seq {
			missed, err := w.f.store.DeadBetween(ctx, p.Place, before, p.Watermark.Seq)
			if err != nil {
				return err
			}
			dead = append(dead, missed...)
		}
		s := buffer.Settlement{
			Place: p.Place, Watermark: p.Last(), Picked: picked, Copied: report.Copied, Committed: report.Committed,
			Dead: dead, Retain: j.table.Retain, RetainBytes: j.table.RetainBytes, Unreplicated: report.Unreplicated,
			Lists: j.table.Lists && stands[p.Place].Settled < p.Last().Seq,
		}
		if n := len(p.Frames); n > 0 {
			s.Bytes = p.Frames[n-1].Bytes
		}
		all = append(all, s)
		r.rows += p.Rows()
		r.merged += int(report.Coalesced[p.Place])
		w.f.measure(j.table.Name, p, report)
	}
	w.f.board.table(j.table.Name, func(t *tableBoard) {
		t.Batches++
		t.BatchRows = r.rows
		t.FlushMS = float64(time.Since(picked).Microseconds()) / 1000
		for _, d := range report.Dead {
			t.Dead += int64(len(d))
		}
	})
	for _, d := range report.Dead {
		r.dead += len(d)
	}
	if len(all) == 0 {
		return nil
	}
	r.commit, r.unsure = true, report.Unreplicated
	tails, err := w.f.log.Settle(ctx, all)
	if err != nil {
		return fmt.Errorf("settle after commit: %w", err)
	}
	for _, t := range tails {
		r.remains[t.Place.Partition] = left{backlog: t.Backlog()}
	}
	return nil
}

// measure records the durability lag of every row of a part. Rows of a frame
// were accepted within one group commit of each other, so one look at its
// first row stands for those that share its millisecond.
func (f *Flusher) measure(tbl string, p *Part, report *Report) {
	now := report.Committed
	f.board.table(tbl, func(t *tableBoard) {
		for _, fr := range p.Frames {
			lagRuns(fr, now, func(lag time.Duration, rows int64) {
				t.lag.record(lag, rows, now)
				t.lagNow.record(lag, rows, now)
				f.observe.Lag(tbl, lag, rows)
			})
			for _, of := range fr.Traces {
				f.observe.Sampled(tbl, max(now.Sub(fr.Accepted(of.From)), 0), of.Span)
			}
			t.Rows += int64(fr.Len())
		}
		t.Rows -= int64(len(report.Dead[p.Place]))
		t.Coalesced += report.Coalesced[p.Place]
	})
}

// lagRuns calls add for each run of rows of a frame with the same lag.
func lagRuns(fr *table.Frame, now time.Time, add func(time.Duration, int64)) {
	for i := 0; i < fr.Len(); {
		at := fr.Accepted(i)
		n := i + 1
		for n < fr.Len() && fr.Accepted(n).Equal(at) {
			n++
		}
		add(max(now.Sub(at), 0), int64(n-i))
		i = n
	}
}
