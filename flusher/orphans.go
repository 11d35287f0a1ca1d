package flusher

import (
	"context"
	"errors"
	"fmt"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// Foreign keys between tables of ours: a child row may reach its flush before
// the parent row that was accepted earlier has reached its own. Such a row is
// not bad. So the first time that a table's batch holds a row whose parent is
// missing, a mark is set: how far both tables were accepted at that moment. The
// table then waits until the parent is committed up to the mark, flushes up to
// its own mark, and only what still has no parent is a dead letter.

// mark is how far two tables were accepted when an orphan was found.
type mark struct {
	parent string
	upto   map[buffer.Place]uint64 // of the parent, and of the child
	tries  int
}

// mostTries bounds how often a table that refers to itself is tried, one
// partition at a time: its own progress is what it waits for.
const mostTries = 16

// waiting is why a batch with orphans was put off.
type waiting struct{ child, parent string }

func (w *waiting) Error() string {
	return fmt.Sprintf("table %s waits for rows of %s that were accepted before its own", w.child, w.parent)
}

func isWaiting(err error) bool {
	var w *waiting
	return errors.As(err, &w)
}

// orphan decides what becomes of a row whose parent is missing: nil makes it a
// dead letter, an error puts the whole batch off.
func (f *Flusher) orphan(ctx context.Context, j *job, parent string) error {
	if m := j.mark; m != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		if m.parent == j.table.Name && m.tries < mostTries {
			m.tries++
			return &waiting{child: j.table.Name, parent: parent}
		}
		return nil
	}
	tables := f.tables()
	p, ours := tables[parent]
	if !ours {
		return nil
	}
	tails, err := f.log.Tails(ctx, append(p.places(), j.table.places()...))
	if err != nil {
		return err
	}
	m := &mark{parent: parent, upto: make(map[buffer.Place]uint64, len(tails))}
	behind := false
	for _, t := range tails {
		m.upto[t.Place] = t.Last.Seq
		behind = behind || t.Place.Table == parent && t.Backlog() > 0
	}
	if !behind {
		return nil
	}
	f.mu.Lock()
	f.schedule.tables[j.table.Name].mark = m
	f.mu.Unlock()
	return &waiting{child: j.table.Name, parent: parent}
}

// ripe returns an error while the parent is not committed up to the job's mark.
func (f *Flusher) ripe(ctx context.Context, j *job) error {
	if j.mark == nil || j.mark.parent == j.table.Name {
		return nil
	}
	parent := f.tables()[j.mark.parent]
	tails, err := f.log.Tails(ctx, parent.places())
	if err != nil {
		return err
	}
	for _, t := range tails {
		if t.Settled < j.mark.upto[t.Place] {
			return &waiting{child: j.table.Name, parent: j.mark.parent}
		}
	}
	return nil
}

// cut leaves the frames up to the mark. A nil mark leaves all.
func (m *mark) cut(p buffer.Place, frames []*table.Frame) []*table.Frame {
	if m == nil {
		return frames
	}
	for i, f := range frames {
		if f.Last.Seq > m.upto[p] {
			return frames[:i]
		}
	}
	return frames
}
