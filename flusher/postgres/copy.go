package postgres

import (
	"context"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher"
)

// batch is the rows of one transaction, inside it.
type batch struct {
	conn   *pgx.Conn
	table  *table.Table
	parts  []flusher.Part
	dead   []deadLetter
	orphan func(ctx context.Context, pg *pgconn.PgError) error // asked before rows without a parent become dead letters
	copied bool                                                // a COPY was made since the savepoint was set
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

// write copies all rows of the batch, bad ones set aside.
func (b *batch) write(ctx context.Context) error {
	for _, r := range b.runs() {
		if err := r.try(ctx, 0, r.rows); err != nil {
			return err
		}
	}
	return nil
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

// copy sends rows from up to and without to. The lines go out as they lie in
// the frames: nothing is decoded or encoded.
func (r *run) copy(ctx context.Context, from, to int) error {
	var lines net.Buffers
	for _, f := range r.frames {
		lo, hi := max(from-f.first, 0), min(to-f.first, f.Len())
		if lo < hi {
			lines = append(lines, f.Lines(lo, hi))
		}
	}
	_, err := r.b.conn.PgConn().CopyFrom(ctx, &lines, r.statement())
	return err
}

// statement of the run's COPY. Names are quoted; they come from the catalog by
// way of the frame.
func (r *run) statement() string {
	names := table.ParseLine(r.frames[0].Columns)
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = pgx.Identifier{string(n.Text)}.Sanitize()
	}
	return "copy " + r.b.table.SQLName + " (" + strings.Join(quoted, ", ") + ") from stdin"
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
