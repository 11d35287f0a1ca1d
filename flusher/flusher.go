package flusher

import (
	"context"
	"fmt"
	"time"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// Log is where accepted rows wait.
type Log interface {
	Tails(ctx context.Context, places []buffer.Place) ([]buffer.Tail, error)
	Frames(ctx context.Context, p buffer.Place, after table.ID, rows, size int) ([]*table.Frame, error)
	Settle(ctx context.Context, all []buffer.Settlement) ([]buffer.Tail, error)
	// Paused reports whether somebody wants a table not to be flushed.
	Paused(ctx context.Context, table string) (bool, error)
	// Reopen compares a place with its watermark again. torn is the epoch in which
	// frames were found missing from its log, 0 for none.
	Reopen(ctx context.Context, p buffer.Place, torn uint64) error
}

// Store is Postgres.
type Store interface {
	// Flush locks the watermarks of those partitions that nobody else holds,
	// loads what follows them, writes it, and moves the watermarks, all in one
	// transaction. An error means that nothing is known to be committed; the
	// next Flush finds out by itself. Its errors tell their Class.
	Flush(ctx context.Context, b Batch) (*Report, error)
	// DeadBetween lists the dead letters of a place after a seq, up to another.
	DeadBetween(ctx context.Context, p buffer.Place, after, upto uint64) ([]buffer.DeadRow, error)
}

// Batch is what is to be flushed.
type Batch struct {
	Table      string
	Partitions []int
	Load       Load
	// DatabaseWins sets operations aside whose rows somebody else changed in
	// Postgres while they waited.
	DatabaseWins bool
	// Orphan is asked, once, when a row refers to a row of another table that
	// is not there: nil makes such rows dead letters, an error ends the Flush.
	Orphan func(ctx context.Context, parent string) error
	// Refuse is asked before a row becomes a dead letter because Postgres refuses
	// it: the count-th of a batch of so many rows, for a reason in a few words. An
	// error ends the Flush. Nil: any number may be refused.
	Refuse func(count, rows int, why string) error
	// Doing hears what is being done with the batch: merging, committing.
	Doing func(state string)
}

// Load gives the rows after each claim, in the same order; a Part may be empty.
type Load func(ctx context.Context, claims []Claim) ([]Part, error)

// Claim is a partition whose watermark row is locked.
type Claim struct {
	Place     buffer.Place
	Watermark table.ID
}

// Part is what a batch holds of one partition.
type Part struct {
	Claim
	Frames []*table.Frame
}

// Rows in the part.
func (p *Part) Rows() int {
	n := 0
	for _, f := range p.Frames {
		n += f.Len()
	}
	return n
}

// Lost counts the rows that were acknowledged and are lost.
func (p *Part) Lost() (n int64) {
	for _, f := range p.Frames {
		n += int64(f.Lost) //nolint:gosec // below 2^53
	}
	return n
}

// Last is the watermark after the part is committed.
func (p *Part) Last() table.ID {
	if len(p.Frames) == 0 {
		return p.Watermark
	}
	return p.Frames[len(p.Frames)-1].Last
}

// Report is what a Flush committed.
type Report struct {
	Parts     []Part
	Dead      map[buffer.Place][]buffer.DeadRow
	Dropped   map[buffer.Place][]buffer.DeadRow // replays of what was replayed before; they count as coalesced
	Coalesced map[buffer.Place]int64            // operations that were merged into another, and written with it
	Copied    time.Time                         // when the rows were written, before COMMIT
	Committed time.Time                         // when COMMIT answered
	// Unreplicated: COMMIT has answered, and Postgres said that it did not wait for
	// its synchronous standby. A failover may take the batch back.
	Unreplicated bool
}

// Gap is a hole in a partition's log: rows that were accepted are gone. The
// partition is opened anew then, and who holds the rows gives them back.
type Gap struct {
	Place buffer.Place
	Want  uint64
	Found table.ID
}

func (g *Gap) Error() string {
	if g.Found == (table.ID{}) {
		return fmt.Sprintf("data gap in %s: the log should go on at seq %d and ends there", g.Place, g.Want)
	}
	return fmt.Sprintf("data gap in %s: the log should go on at seq %d and goes on at %s", g.Place, g.Want, g.Found)
}

// checkDense returns a Gap unless the frames follow the watermark and each
// other without a hole.
func checkDense(c Claim, frames []*table.Frame) error {
	next := c.Watermark.Seq + 1
	for _, f := range frames {
		if f.First().Seq != next {
			return &Gap{Place: c.Place, Want: next, Found: f.First()}
		}
		next = f.Last.Seq + 1
	}
	return nil
}
