package flusher

import (
	"fmt"
	"slices"
	"time"
)

// schedule knows which partitions have something to flush, when each is due,
// and which tables are in trouble. Pure: it is told the time.
type schedule struct {
	tables  map[string]*tableState
	breaker breaker
	chance  func() float64 // from 0 to 1; for jitter
}

type tableState struct {
	Table
	sizer   sizer
	parts   []partState
	trouble trouble
	mark    *mark // set while the table waits for a parent table
	merging bool  // most of what the last batch held was merged
	jobs    int   // under way
	refused refusals
	tried   time.Time
}

// patience is how long a row waits for company: where rows are merged, more
// company costs nothing, so half of the target lag.
func (st *tableState) patience() time.Duration {
	if st.merging {
		return max(st.Linger, st.TargetLag/2)
	}
	return st.Linger
}

type partState struct {
	pending bool
	running bool
	again   bool // a notice came while it was running
	busy    bool // somebody else held it when it was last looked at
	backlog int64
	due     time.Time
}

// trouble of a table: it is not tried again before until, and then by one batch.
type trouble struct {
	err   error
	class Class
	parts []int // of the batch that failed last
	since time.Time
	until time.Time
	pause time.Duration
}

// text says what is wrong, and of which partition when it was tried alone: the cause
// of an error that passes may lie in its rows.
func (t *trouble) text() string {
	if t.class == Environment && len(t.parts) == 1 {
		return fmt.Sprintf("%s (partition %d was tried)", t.err, t.parts[0])
	}
	return t.err.Error()
}

// grow chooses the next pause. A lock is released soon; what a flush of another
// table waits for comes within one; where the cause is shared the breaker waits.
func (t *trouble) grow() {
	switch t.class {
	case PutOff:
		if t.pause = firstPause; isPaused(t.err) {
			t.pause = pausedLook
		}
	case Unreachable, BufferAway:
		t.pause = firstPause
	case Contention:
		t.pause = min(max(2*t.pause, firstLock), mostLock)
	default:
		t.pause = min(max(2*t.pause, firstPause), mostPause)
	}
}

// Pauses after errors grow from first to most, each less up to half of it by
// chance.
const (
	firstPause = 50 * time.Millisecond
	mostPause  = 3 * time.Second
	firstLock  = 10 * time.Millisecond
	mostLock   = 500 * time.Millisecond
	busyPause  = 20 * time.Millisecond // before a partition that another worker holds is looked at again
)

func newSchedule(chance func() float64) *schedule {
	return &schedule{tables: make(map[string]*tableState), chance: chance}
}

// set adds a table or changes how it is flushed. A table never shrinks its
// partitions while it runs.
func (s *schedule) set(t Table) {
	st := s.tables[t.Name]
	if st == nil {
		st = &tableState{sizer: newSizer(t.TargetLag)}
		s.tables[t.Name] = st
	}
	st.Table = t
	st.sizer.target = t.TargetLag
	for len(st.parts) < t.Partitions {
		st.parts = append(st.parts, partState{})
	}
}

// notice: the partition has something to flush; backlog is 0 when the number
// of rows is not known.
func (s *schedule) notice(tbl string, partition int, backlog int64, now time.Time) {
	st := s.tables[tbl]
	if st == nil || partition >= len(st.parts) {
		return
	}
	p := &st.parts[partition]
	p.backlog = max(backlog, 0)
	if p.running {
		p.again = true
		return
	}
	if !p.pending {
		p.pending = true
		p.due = now.Add(st.patience())
	}
	if p.backlog >= int64(st.sizer.rows/2) && p.due.After(now) && !p.busy {
		p.due = now // a full batch need not wait
	}
}

// job is a batch to make: partitions of one table.
type job struct {
	table      Table
	partitions []int
	rows       int   // most rows of the batch
	mark       *mark // flush no further than this
}

// next gives a job that is due, or the time at which one will be (zero: none
// is known).
func (s *schedule) next(now time.Time) (*job, time.Time) {
	var best *tableState
	var at time.Time
	for _, st := range s.tables {
		due, ok := st.due()
		if !ok {
			continue
		}
		if at.IsZero() || due.Before(at) {
			best, at = st, due
		}
	}
	if best == nil || at.After(now) {
		return nil, at
	}
	if until, probing := s.breaker.hold(); probing {
		return nil, time.Time{}
	} else if until.After(now) {
		return nil, until
	} else if !until.IsZero() {
		best = s.longAgo(now)
	}
	j := best.take()
	best.tried = now
	s.breaker.began(j)
	return j, at
}

// longAgo gives the table that is due and was tried the longest time ago.
func (s *schedule) longAgo(now time.Time) (best *tableState) {
	for _, st := range s.tables {
		if due, ok := st.due(); ok && !due.After(now) && (best == nil || st.tried.Before(best.tried)) {
			best = st
		}
	}
	return best
}

// due is when the table's first pending partition is due.
func (st *tableState) due() (at time.Time, ok bool) {
	if st.jobs > 0 && st.trouble.err != nil && st.trouble.class != PutOff {
		return at, false // a lock that is waited for must not hold all workers
	}
	for i := range st.parts {
		p := &st.parts[i]
		if p.pending && !p.running && (!ok || p.due.Before(at)) {
			at, ok = p.due, true
		}
	}
	if ok && at.Before(st.trouble.until) {
		at = st.trouble.until
	}
	return at, ok
}

// take makes a job of the pending partitions that were due first, as many as
// fill a batch. Those that are not due yet come along: company is cheap.
func (st *tableState) take() *job {
	var ready []int
	for i := range st.parts {
		if st.parts[i].pending && !st.parts[i].running {
			ready = append(ready, i)
		}
	}
	slices.SortFunc(ready, func(a, b int) int { return st.parts[a].due.Compare(st.parts[b].due) })
	if st.mark != nil && st.mark.parent == st.Name {
		ready = ready[:1]
	}
	st.jobs++
	j := &job{table: st.Table, rows: st.sizer.rows, mark: st.mark}
	var rows int64
	for _, i := range ready {
		if rows >= int64(st.sizer.rows) {
			break
		}
		rows += max(st.parts[i].backlog, 1)
		st.parts[i].running = true
		st.parts[i].again = false
		j.partitions = append(j.partitions, i)
	}
	if st.trouble.err != nil && len(j.partitions) > 1 && st.trouble.pause >= mostPause {
		// A probe of a table in lasting trouble need not hold more than one.
		for _, i := range j.partitions[1:] {
			st.parts[i].running = false
		}
		j.partitions = j.partitions[:1]
	}
	return j
}

// left says what remained of a partition after a job.
type left struct {
	backlog int64
	busy    bool // somebody else holds it
}

// done takes a job's result.
func (s *schedule) done(j *job, remains map[int]left, rows, merged int, took time.Duration, err error, now time.Time) {
	s.breaker.done(j, err, now, s.chance())
	st := s.tables[j.table.Name]
	if st == nil {
		return
	}
	st.jobs--
	if err == nil && rows > 0 {
		st.merging = merged > rows/2
	}
	for _, i := range j.partitions {
		p := &st.parts[i]
		p.running = false
		l, known := remains[i]
		if known {
			p.backlog = l.backlog
		}
		p.busy = l.busy
		p.pending = err != nil || p.again || !known || l.busy || l.backlog > 0
		p.due = now
		switch {
		case l.busy: // somebody else has it, and may hold it for long
			p.due = now.Add(max(st.Linger, busyPause))
		case err == nil && l.backlog < int64(st.sizer.rows/2):
			p.due = now.Add(st.patience())
		}
		p.again = false
	}
	if err == nil {
		if j.mark != nil && st.mark == j.mark {
			st.mark = nil
		}
		st.trouble = trouble{}
		st.sizer.flushed(rows, took)
		return
	}
	if st.trouble.err == nil {
		st.trouble.since = now
	}
	st.trouble.err, st.trouble.class, st.trouble.parts = err, ClassOf(err), j.partitions
	st.trouble.grow()
	st.trouble.until = now.Add(jitter(st.trouble.pause, s.chance()))
	if c := st.trouble.class; c == Environment || c == Contention || c == Poison {
		st.sizer.failed()
	}
}

// idle reports that nothing is pending or running.
func (s *schedule) idle() bool {
	for _, st := range s.tables {
		waits := !isPaused(st.trouble.err) // what is paused is not waited for
		for i := range st.parts {
			if st.parts[i].pending && waits || st.parts[i].running {
				return false
			}
		}
	}
	return true
}
