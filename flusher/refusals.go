package flusher

import (
	"fmt"
	"time"
)

// When Postgres refuses row after row, it is not the rows: a constraint was added,
// a trigger is broken, a client has gone mad. Then the table is halted instead of
// its rows being heaped up in the dead letters.

// refusals of a table by Postgres: how many of its rows, over the last minute. At
// most the limit, or a hundredth of the rows, may be.
type refusals struct {
	slots   [slotsKept]struct{ rows, dead int }
	turned  time.Time // when the first slot was begun
	halted  bool
	whole   time.Time // when a batch was last let have all that may be refused,
	full    bool      // and whether the present one is
	started bool
}

const (
	slotTime  = 10 * time.Second
	slotsKept = 7 // the minute that is over, and the slot that is not

	// probeRefusals is how many rows a halted table's probe may find, so that it
	// costs little; once in a minute it may find as many as the limit.
	probeRefusals = 5
)

// turn lets go of what is too old.
func (r *refusals) turn(now time.Time) {
	if !r.started {
		r.turned, r.started = now, true
	}
	for n := 0; now.Sub(r.turned) >= slotTime; n++ {
		if n == slotsKept {
			r.turned = now
			return
		}
		copy(r.slots[1:], r.slots[:slotsKept-1])
		r.slots[0] = struct{ rows, dead int }{}
		r.turned = r.turned.Add(slotTime)
	}
}

// committed counts the rows of a batch and the dead letters among them.
func (r *refusals) committed(rows, dead int, now time.Time) {
	if rows == 0 {
		return
	}
	r.turn(now)
	r.slots[0].rows += rows
	r.slots[0].dead += dead
	r.halted = false
}

func (r *refusals) sum(now time.Time) (rows, dead int) {
	r.turn(now)
	for _, s := range r.slots {
		rows += s.rows
		dead += s.dead
	}
	return rows, dead
}

// check is asked when a batch of so many rows has so many that were refused. It
// gives an error when those are too many.
func (r *refusals) check(limit int, of refused, now time.Time) error {
	if limit <= 0 {
		return nil
	}
	rows, dead := r.sum(now)
	most := max(limit, (rows+of.rows)/100) - dead
	if r.halted {
		if of.count == 1 { // of one batch at a time: the table is in trouble
			if r.full = now.Sub(r.whole) >= time.Minute; r.full {
				r.whole = now
			}
		}
		if !r.full {
			most = min(most, probeRefusals)
		}
	}
	if of.count <= most {
		return nil
	}
	if !r.halted {
		r.halted, r.whole = true, now
	}
	of.limit, of.rows, of.count = limit, rows+of.rows, dead+of.count
	return &TooManyRefused{of}
}

// refused is what was refused of a batch so far.
type refused struct {
	table       string
	count, rows int
	why         string // SQLSTATE and constraint of the last one
	limit       int
}

// TooManyRefused ends a batch of which Postgres refuses too much. Nothing of it
// becomes a dead letter.
type TooManyRefused struct{ refused }

// Class is Poison.
func (*TooManyRefused) Class() Class { return Poison }

func (e *TooManyRefused) Error() string {
	return fmt.Sprintf("%d of %d rows of table %s were refused within a minute, the last with %s: that is more than poison_limit (%d, or 1 %%), "+
		"so the table is halted instead of filling the dead letters; nothing is lost. Mend what refuses the rows and it goes on by itself, or raise poison_limit",
		e.count, e.rows, e.table, e.why, e.limit)
}
