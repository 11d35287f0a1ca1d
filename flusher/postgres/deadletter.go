package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher"
)

// deadLetter is a row that Postgres refused, with its reason.
type deadLetter struct {
	place    buffer.Place
	id       table.ID
	op       table.Op
	key      string
	accepted time.Time
	span     table.Span // zero when its request was not sampled
	columns  []string
	values   []*string // canonical text, exact; of an increment what is added, where its column is exact
	row      string    // JSON, for people: the whole row
	cause    *pgconn.PgError
	behind   table.ID // the dead letter that it is parked behind; zero for none
	replays  int      // how often it was replayed
}

// setAside makes row i of a frame a dead letter.
func (b *batch) setAside(part *flusher.Part, f *table.Frame, i int, pg *pgconn.PgError) error {
	first, op := f.First(), f.Op(i)
	d := deadLetter{
		place: part.Place, id: table.ID{Epoch: first.Epoch, Seq: first.Seq + uint64(i)}, //nolint:gosec // never negative
		op: op, accepted: f.Accepted(i), span: f.Traced(i), cause: pg,
	}
	names, cells := table.HeaderNames(f.Columns), table.ParseLine(f.Line(i))
	var changes []table.Change
	if op.Changes() && len(cells) > 0 {
		var err error
		if changes, err = table.ParseChanges(cells[len(cells)-1].Text); err != nil {
			return err
		}
		cells = cells[:len(cells)-1]
	}
	if len(names) != len(cells) {
		return fmt.Errorf("%w: %d columns and %d values in %s", table.ErrCorruptFrame, len(names), len(cells), d.id)
	}
	row := make(table.Row, len(b.table.Columns))
	for j, name := range names {
		c, known := b.table.Column(name)
		if known {
			row[c] = cells[j]
		}
		if written, value := writes(op, j, known && b.table.IsKey(c), cells[j], changes); written {
			d.columns = append(d.columns, name)
			d.values = append(d.values, value)
		}
	}
	if d.row = string(b.table.AppendRowJSON(nil, row)); !json.Valid([]byte(d.row)) {
		d.row = b.asTexts(row)
	}
	if b.table.HasKey() {
		d.key = string(b.table.AppendKey(nil, row))
	}
	if at := slices.IndexFunc(b.parts, func(p flusher.Part) bool { return p.Place == part.Place }); at >= 0 && b.tries != nil {
		d.replays = b.tries[at][d.id]
	}
	b.dead = append(b.dead, d)
	if pg.Code != yieldedState { // there later changes are applied to what the database has
		b.dig(table.Letter{Partition: part.Place.Partition, ID: d.id}, d.id)
	}
	return nil
}

// asTexts shows a row with a value that is not of the type that its column has now.
func (b *batch) asTexts(row table.Row) string {
	texts := make(map[string]*string, len(row))
	for i := range row {
		switch row[i].State {
		case table.Set:
			s := string(row[i].Text)
			texts[b.table.Columns[i].Name] = &s
		case table.Null:
			texts[b.table.Columns[i].Name] = nil
		}
	}
	text, _ := json.Marshal(texts) // strings always marshal
	return string(text)
}

// writes says whether an operation writes the column at a position, and what: a
// delete has a key, a patch the key and what it changes, all others the row.
func writes(op table.Op, position int, key bool, cell table.Cell, changes []table.Change) (written bool, value *string) {
	if cell.State == table.Set {
		text := string(cell.Text)
		value = &text
	}
	at := slices.IndexFunc(changes, func(c table.Change) bool { return c.Column == position })
	switch {
	case at >= 0 && changes[at].Add != nil:
		text := string(changes[at].Add)
		return true, &text
	case op.Changes():
		return key || at >= 0, value
	case op == table.OpDelete:
		return key, value
	}
	return true, value
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
				constraint_name, column_name, "row", columns, "values", accepted_at, ignores_existing, replays, parked_epoch, parked_seq,
				trace_id, span_id)
			values ($1, $2, $3, $4, $5, $6, $7, $8, nullif($9, ''), nullif($10, ''), nullif($11, ''), $12::text::jsonb, $13, $14, $15,
				$16, $17, nullif($18::bigint, 0), nullif($19::bigint, 0), $20, $21)`,
			d.place.Table, d.place.Partition, int64(d.id.Epoch), int64(d.id.Seq), d.key, d.op.String(), //nolint:gosec // below 2^53
			d.cause.Code, d.cause.Message, d.cause.Detail, d.cause.ConstraintName, columnOf(d.cause),
			d.row, d.columns, d.values, d.accepted, d.op == table.OpIgnore, d.replays, int64(d.behind.Epoch), int64(d.behind.Seq), //nolint:gosec // below 2^53
			traced(d.span, d.span.TraceID()), traced(d.span, d.span.SpanID())) //nolint:gosec // below 2^53
	}
	if err := tx.SendBatch(ctx, b).Close(); err != nil {
		return fmt.Errorf("insert dead letters: %w", err)
	}
	return nil
}

// traced is an id of a span, null when there is none.
func traced(of table.Span, id string) *string {
	if of == (table.Span{}) {
		return nil
	}
	return &id
}

// DeadBetween implements flusher.Store: it gives those too that another row stands
// for since.
func (s *Store) DeadBetween(ctx context.Context, p buffer.Place, after, upto uint64) ([]buffer.DeadRow, error) {
	rows, err := s.pool.Query(ctx, `
		select key, epoch, seq from headpond.dead_letters
		where table_name = $1 and partition = $2 and seq > $3 and seq <= $4
		union all
		select key, epoch, seq from headpond.discarded
		where table_name = $1 and partition = $2 and seq > $3 and seq <= $4
		union all
		select key, epoch, seq from headpond.replays
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
