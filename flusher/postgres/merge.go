package postgres

import (
	"bytes"
	"context"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher"
)

// merge writes a batch that holds more than inserts: what it makes of each key,
// wave after wave. What Postgres refuses is done again from the operations that
// it stands for, one by one, when the rest of its wave is written: it may have
// waited for a row of another key. What fails then is a dead letter.
func (b *batch) merge(ctx context.Context) error {
	waves, err := flusher.Coalesce(b.table, b.parts)
	if err != nil {
		return err
	}
	for _, wave := range waves {
		refused := map[*flusher.Net]bool{}
		groups := groupsOf(b, b.parkWave(wave, refused))
		b.again = true
		for _, g := range groups {
			g.refused = refused
			if err := b.try(ctx, g, 0, len(g.nets)); err != nil {
				return err
			}
		}
		b.again = false
		if err := b.closeWave(ctx, wave, refused); err != nil {
			return err
		}
		if err := flusher.FailWave.Reach(); err != nil {
			return err
		}
	}
	return nil
}

// closeWave replays what was refused, and counts what was merged in the rest.
func (b *batch) closeWave(ctx context.Context, wave []*flusher.Net, refused map[*flusher.Net]bool) error {
	for _, n := range wave {
		if !refused[n] {
			for _, o := range n.Origins[:len(n.Origins)-1] {
				b.coalesced[o.Part]++
			}
			continue
		}
		for _, o := range n.Origins {
			if behind, is := b.blocked(o); is {
				if err := b.park(o, behind); err != nil {
					return err
				}
				continue
			}
			alone, err := o.Net(b.table)
			if err != nil {
				return err
			}
			if err := b.try(ctx, &original{b, o, alone}, 0, 1); err != nil {
				return err
			}
		}
	}
	return nil
}

// group is net operations of a wave that one statement writes.
type group struct {
	b       *batch
	nets    []*flusher.Net
	refused map[*flusher.Net]bool // of the wave
}

// order of the kinds within a wave: room is made first, and rows that others
// may refer to come before those that are changed.
var order = []table.Op{table.OpDelete, table.OpInsert, table.OpIgnore, table.OpPut, table.OpPatch}

// groupsOf a wave: by kind and column list, else in the order of the log.
func groupsOf(b *batch, wave []*flusher.Net) (out []*group) {
	for _, op := range order {
		byColumns := make(map[*flusher.Columns]*group)
		for _, n := range wave {
			if n.Op != op {
				continue
			}
			g := byColumns[n.Columns]
			if g == nil {
				g = &group{b: b}
				byColumns[n.Columns] = g
				out = append(out, g)
			}
			g.nets = append(g.nets, n)
		}
	}
	return out
}

func (g *group) write(ctx context.Context, from, to int) error {
	return g.b.apply(ctx, g.nets[from:to])
}

func (g *group) refuse(n int, _ *pgconn.PgError) error {
	g.refused[g.nets[n]] = true
	return nil
}

// original is one operation of the log.
type original struct {
	b   *batch
	o   flusher.Origin
	net *flusher.Net
}

func (r *original) write(ctx context.Context, _, _ int) error {
	return r.b.apply(ctx, []*flusher.Net{r.net})
}

func (r *original) refuse(_ int, pg *pgconn.PgError) error {
	if err := r.b.mayRefuse(pg); err != nil {
		return err
	}
	return r.b.setAside(&r.b.parts[r.o.Part], r.o.Frame, r.o.Row, pg)
}

// apply writes operations of one kind, with one column list, on different keys.
func (b *batch) apply(ctx context.Context, nets []*flusher.Net) error {
	switch nets[0].Op {
	case table.OpInsert:
		return b.copyNets(ctx, nets)
	case table.OpIgnore:
		_, err := b.query(ctx, insertStatement(b.table, nets, ignoreConflict))
		return err
	case table.OpPut:
		_, err := b.query(ctx, insertStatement(b.table, nets, replaceConflict))
		return err
	case table.OpPatch:
		return b.patch(ctx, nets)
	}
	_, err := b.query(ctx, holdStatement(b.table, nets, "update"), deleteStatement(b.table, nets))
	return err
}

func (b *batch) copyNets(ctx context.Context, nets []*flusher.Net) error {
	var lines []byte
	for _, n := range nets {
		for i, c := range n.Row {
			if i > 0 {
				lines = append(lines, '\t')
			}
			if c.State == table.Set {
				lines = table.AppendEscaped(lines, c.Text)
			} else {
				lines = append(lines, '\\', 'N')
			}
		}
		lines = append(lines, '\n')
	}
	return b.copy(ctx, nets[0].Columns.Names, bytes.NewReader(lines))
}

// patch changes the rows that are there, and inserts those that are not as a
// whole. A row that somebody else inserts in between is a conflict, which the
// replay resolves.
func (b *batch) patch(ctx context.Context, nets []*flusher.Net) error {
	statements := []statement{holdStatement(b.table, nets, "no key update")} // foreign keys to the row are checked meanwhile
	if update, some := updateStatement(b.table, nets); some {
		statements = append(statements, update)
	}
	absent, err := b.query(ctx, statements...)
	if err != nil || len(absent) == 0 {
		return err
	}
	missing := make([]*flusher.Net, len(absent))
	for i, row := range absent {
		n, err := strconv.Atoi(string(row[0]))
		if err != nil {
			return err
		}
		missing[i] = nets[n-1]
	}
	_, err = b.query(ctx, insertStatement(b.table, missing, refuseConflict))
	return err
}

// query sends statements in one round trip and gives the rows of the first.
func (b *batch) query(ctx context.Context, statements ...statement) (rows [][][]byte, err error) {
	first := b.takeFirst()
	p := b.conn.PgConn().StartPipeline(ctx)
	for _, sql := range first {
		p.SendQueryParams(sql, nil, nil, nil, nil)
	}
	for _, s := range statements {
		p.SendQueryParams(s.sql, s.params, nil, []int16{binaryFormat}, nil)
	}
	if err := p.Sync(); err != nil {
		_ = p.Close()
		return nil, err
	}
	for i := range len(first) + len(statements) {
		results, err := p.GetResults()
		if reader, ok := results.(*pgconn.ResultReader); ok {
			read := reader.Read()
			if err = read.Err; i == len(first) {
				rows = read.Rows
			}
		}
		if err != nil {
			_ = p.Close() // the error of its own is what follows from this one
			return nil, err
		}
	}
	return rows, p.Close()
}
