package postgres

import (
	"context"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher"
)

// batch is the rows of one transaction, inside it.
type batch struct {
	conn      *pgx.Conn
	table     *table.Table
	parts     []flusher.Part
	dead      []deadLetter
	coalesced []int64   // of each part: operations merged into another
	orphan    orphanage // asked before rows without a parent become dead letters
	again     bool      // what is refused now is tried once more
	first     []string  // what is executed before the next write, in its round trip
	careful   bool      // rows are refused, in this batch or in one a moment ago: see step
	refuse    func(count, rows int, why string) error
	doing     func(state string) // nil: nobody asks
	refused   int                // rows so far
	graves    graves             // what changes cannot be applied to

	// Of rows that replay dead letters, by part: how many were left out, and of the others how often they were tried.
	left    []int64
	tries   []map[table.ID]int
	dropped map[buffer.Place][]buffer.DeadRow // rows that were left out
}

// run is frames with the same column list, in order. Its rows are numbered
// through from 0.
type run struct {
	b      *batch
	frames []framed
	rows   int
}

type framed struct {
	*table.Frame
	part  *flusher.Part
	first int // number of its first row in the run
}

// write writes all rows of the batch, bad ones set aside. Inserts alone are
// copied as they lie: a key that occurs twice is refused as it would be one by one.
func (b *batch) write(ctx context.Context) error {
	b.coalesced = make([]int64, len(b.parts))
	if !b.insertsOnly() {
		b.does("merging")
		if err := b.merge(ctx); err != nil {
			return err
		}
		return b.undoLast(ctx)
	}
	for _, r := range b.runs() {
		if err := b.try(ctx, r, 0, r.rows); err != nil {
			return err
		}
	}
	return b.undoLast(ctx)
}

func (b *batch) does(state string) {
	if b.doing != nil {
		b.doing(state)
	}
}

func (b *batch) insertsOnly() bool {
	for i := range b.parts {
		for _, f := range b.parts[i].Frames {
			for row := range f.Len() {
				if f.Op(row) != table.OpInsert {
					return false
				}
			}
		}
	}
	return true
}

func (b *batch) runs() []*run {
	var out []*run
	var r *run
	for i := range b.parts {
		p := &b.parts[i]
		for _, f := range p.Frames {
			if r == nil || string(r.frames[0].Columns) != string(f.Columns) {
				r = &run{b: b}
				out = append(out, r)
			}
			r.frames = append(r.frames, framed{Frame: f, part: p, first: r.rows})
			r.rows += f.Len()
		}
	}
	return out
}

// write sends rows from up to and without to. The lines go out as they lie in
// the frames: nothing is decoded or encoded.
func (r *run) write(ctx context.Context, from, to int) error {
	var lines net.Buffers
	for _, f := range r.frames {
		lo, hi := max(from-f.first, 0), min(to-f.first, f.Len())
		if lo < hi {
			lines = append(lines, f.Lines(lo, hi))
		}
	}
	return r.b.copy(ctx, table.HeaderNames(r.frames[0].Columns), &lines)
}

// copy sends lines. Names are quoted; they come from the catalog by way of the
// frame.
func (b *batch) copy(ctx context.Context, names []string, lines io.Reader) error {
	statements := append(b.takeFirst(), "copy "+b.table.SQLName+" ("+quoteAll(names)+") from stdin")
	_, err := b.conn.PgConn().CopyFrom(ctx, lines, strings.Join(statements, "; "))
	return err
}

func quoteAll(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = quote(n)
	}
	return strings.Join(quoted, ", ")
}

func quote(name string) string { return pgx.Identifier{name}.Sanitize() }

// refuse makes row n of the run a dead letter.
func (r *run) refuse(n int, pg *pgconn.PgError) error {
	f, i := r.at(n)
	if err := r.b.mayRefuse(pg); err != nil {
		return err
	}
	return r.b.setAside(f.part, f.Frame, i, pg)
}

// at gives the frame of row n and the row's place in it.
func (r *run) at(n int) (framed, int) {
	lo, hi := 0, len(r.frames)
	for hi-lo > 1 {
		mid := (lo + hi) / 2
		if r.frames[mid].first <= n {
			lo = mid
		} else {
			hi = mid
		}
	}
	return r.frames[lo], n - r.frames[lo].first
}
