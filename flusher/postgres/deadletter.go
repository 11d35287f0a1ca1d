package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// deadLetter is a row that Postgres refused, with its reason.
type deadLetter struct {
	place    buffer.Place
	id       table.ID
	op       table.Op
	key      string
	accepted time.Time
	columns  []string
	values   []*string // canonical text, exact
	row      string    // JSON, for people
	cause    *pgconn.PgError
}

// setAside makes row n of the run a dead letter.
func (r *run) setAside(n int, pg *pgconn.PgError) error {
	f, i := r.at(n)
	first := f.First()
	d := deadLetter{
		place: f.part.Place, id: table.ID{Epoch: first.Epoch, Seq: first.Seq + uint64(i)}, //nolint:gosec // never negative
		op: f.Op(i), accepted: f.Accepted(i), cause: pg,
	}
	names, cells := table.ParseLine(f.Columns), table.ParseLine(f.Line(i))
	if len(names) != len(cells) {
		return fmt.Errorf("%w: %d columns and %d values in %s", table.ErrCorruptFrame, len(names), len(cells), d.id)
	}
	t := r.b.table
	row := make(table.Row, len(t.Columns))
	for j, name := range names {
		d.columns = append(d.columns, string(name.Text))
		if cells[j].State == table.Null {
			d.values = append(d.values, nil)
		} else {
			text := string(cells[j].Text)
			d.values = append(d.values, &text)
		}
		if c, ok := t.Column(string(name.Text)); ok {
			row[c] = cells[j]
		}
	}
	d.row = string(t.AppendRowJSON(nil, row))
	if t.HasKey() {
		d.key = string(t.AppendKey(nil, row))
	}
	r.b.dead = append(r.b.dead, d)
	return nil
}

// bury inserts the dead letters, all in one round trip.
func bury(ctx context.Context, tx pgx.Tx, dead []deadLetter) error {
	if len(dead) == 0 {
		return nil
	}
	b := &pgx.Batch{}
	for i := range dead {
		d := &dead[i]
		b.Queue(`
			insert into headpond.dead_letters (table_name, partition, epoch, seq, key, operation, sqlstate, message, detail,
				constraint_name, column_name, "row", columns, "values", accepted_at)
			values ($1, $2, $3, $4, $5, $6, $7, $8, nullif($9, ''), nullif($10, ''), nullif($11, ''), $12::text::jsonb, $13, $14, $15)`,
			d.place.Table, d.place.Partition, int64(d.id.Epoch), int64(d.id.Seq), d.key, d.op.String(), //nolint:gosec // below 2^53
			d.cause.Code, d.cause.Message, d.cause.Detail, d.cause.ConstraintName, columnOf(d.cause),
			d.row, d.columns, d.values, d.accepted)
	}
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("insert dead letters: %w", err)
	}
	return nil
}

// DeadBetween implements flusher.Store.
func (s *Store) DeadBetween(ctx context.Context, p buffer.Place, after, upto uint64) ([]buffer.DeadRow, error) {
	rows, err := s.pool.Query(ctx, `
		select key, epoch, seq from headpond.dead_letters
		where table_name = $1 and partition = $2 and seq > $3 and seq <= $4 order by seq`,
		p.Table, p.Partition, int64(after), int64(upto)) //nolint:gosec // below 2^53
	if err != nil {
		return nil, fmt.Errorf("read dead letters: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (d buffer.DeadRow, err error) {
		var epoch, seq int64
		err = row.Scan(&d.Key, &epoch, &seq)
		d.ID = table.ID{Epoch: uint64(epoch), Seq: uint64(seq)} //nolint:gosec // never negative
		return d, err
	})
}
