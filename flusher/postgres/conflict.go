package postgres

import (
	"context"
	"errors"
	"maps"
	"math"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher"
)

// Where the database wins, an operation that waited while somebody else changed
// its row in Postgres is set aside.

const (
	bufferWins   = "buffer-wins"
	databaseWins = "database-wins"
)

// ExternalCounts counts what others changed. Safe for concurrent use.
type ExternalCounts struct {
	mu        sync.Mutex // guards the rest
	changes   map[string]int64
	conflicts map[conflictOf]int64
}

type conflictOf struct{ table, policy string }

func (c *ExternalCounts) add(changes map[string]int64, conflicts map[conflictOf]int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.changes == nil {
		c.changes, c.conflicts = make(map[string]int64), make(map[conflictOf]int64)
	}
	for name, n := range changes {
		c.changes[name] += n
	}
	for of, n := range conflicts {
		c.conflicts[of] += n
	}
}

// Changes is how many keys of each table were changed by others; a whole table
// counts once.
func (c *ExternalCounts) Changes() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.changes)
}

// Conflicts of a table: where the buffer wins, keys that had an operation
// waiting; where the database wins, operations that were set aside.
func (c *ExternalCounts) Conflicts(table, policy string) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conflicts[conflictOf{table, policy}]
}

// losers is which operations of a table lose: those on a key up to an id.
type losers struct {
	all  bool // the whole table was changed
	keys map[string]table.ID
}

func (l *losers) loses(key []byte, id table.ID) bool {
	upto, known := l.keys[string(key)]
	return l.all || known && (id.Epoch < upto.Epoch || id.Epoch == upto.Epoch && id.Seq <= upto.Seq)
}

// everyID is above all that there are.
var everyID = table.ID{Epoch: math.MaxUint64}

// losersOf reads what others changed: what the watcher has seen, and what it has
// not seen yet, which loses as a whole. One statement, so that nothing slips from
// the one table to the other in between.
func losersOf(ctx context.Context, tx pgx.Tx, t *table.Table) (*losers, error) {
	rows, err := tx.Query(ctx, `
		select '{}'::int[], '{}'::text[], false, key, epoch, loses from headpond.conflicts where table_name = $1 and loses > 0
		union all
		select coalesce(columns, '{}'), coalesce(keys, '{}'), keys is null, '', 0, 0 from headpond.changes where table_name = $1 and not own`, t.Name)
	if err != nil {
		return nil, err
	}
	l := &losers{keys: make(map[string]table.ID)}
	err = each(rows, func() ([]any, func()) {
		var c change
		var key string
		var upto table.ID
		return []any{&c.columns, &c.keys, &c.whole, &key, &upto.Epoch, &upto.Seq}, func() {
			switch {
			case upto.Seq > 0:
				if _, known := l.keys[key]; !known { // from changes: all of them
					l.keys[key] = upto
				}
			case c.whole, !c.fits(t):
				l.all = true
			}
			for _, key := range c.keys {
				if !l.all {
					l.keys[string(keyOf(t, key))] = everyID
				}
			}
		}
	})
	return l, err
}

// errChangedMeanwhile: a row was changed by somebody else between the look and
// the write. The batch is begun anew.
var errChangedMeanwhile = errors.New("a row was changed in Postgres by somebody else while the batch was written")

// writeUnlessChanged writes the batch, where the database wins without what loses.
func (b *batch) writeUnlessChanged(ctx context.Context, tx pgx.Tx, databaseWins bool) (yielded int, err error) {
	if !databaseWins {
		return 0, b.write(ctx)
	}
	l, err := losersOf(ctx, tx, b.table)
	if err != nil {
		return 0, err
	}
	if yielded, err = b.yield(l); err != nil {
		return 0, err
	}
	if err := b.write(ctx); err != nil {
		return 0, err
	}
	return yielded, b.recheck(ctx, tx)
}

// yield sets aside the operations that lose.
func (b *batch) yield(l *losers) (n int, err error) {
	for i := range b.parts {
		p := &b.parts[i]
		var frames []*table.Frame
		for _, f := range p.Frames {
			lost, err := b.lost(f, l)
			if err != nil {
				return n, err
			}
			from := 0
			for _, row := range lost {
				if from < row {
					frames = append(frames, f.Cut(from, row))
				}
				from = row + 1
				if err := b.setAside(p, f, row, changedByOthers(b.table)); err != nil {
					return n, err
				}
			}
			n += len(lost)
			if from == 0 {
				frames = append(frames, f)
			} else if from < f.Len() {
				frames = append(frames, f.Cut(from, f.Len()))
			}
		}
		p.Frames = frames
	}
	return n, nil
}

// lost gives the rows of a frame that lose, in their order.
func (b *batch) lost(f *table.Frame, l *losers) (rows []int, err error) {
	if !l.all && len(l.keys) == 0 {
		return nil, nil
	}
	names := table.HeaderNames(f.Columns)
	at := make(map[string]int, len(names))
	for i, name := range names {
		at[name] = i
	}
	row := make(table.Row, len(b.table.Columns))
	var key []byte
	for i := range f.Len() {
		cells := table.ParseLine(f.Line(i))
		for _, k := range b.table.Key {
			place, known := at[b.table.Columns[k].Name]
			if !known || place >= len(cells) {
				return nil, flusher.ErrKeyChanged
			}
			row[k] = cells[place]
		}
		key = b.table.AppendKey(key[:0], row)
		id := table.ID{Epoch: f.First().Epoch, Seq: f.First().Seq + uint64(i)} //nolint:gosec // never negative
		if l.loses(key, id) {
			rows = append(rows, i)
		}
	}
	return rows, nil
}

// recheck is to be called when the batch is written and its rows are locked: what
// others changed until then is visible now, and what they change from now on
// comes after this batch.
func (b *batch) recheck(ctx context.Context, tx pgx.Tx) error {
	l, err := losersOf(ctx, tx, b.table)
	if err != nil {
		return err
	}
	for i := range b.parts {
		for _, f := range b.parts[i].Frames {
			rows, err := b.lost(f, l)
			if err != nil {
				return err
			}
			if len(rows) > 0 {
				return errChangedMeanwhile
			}
		}
	}
	return nil
}

// yieldedState is the SQLSTATE of changes that lost against the database.
const yieldedState = "HP001"

func changedByOthers(t *table.Table) *pgconn.PgError {
	return &pgconn.PgError{
		Severity: "ERROR", Code: yieldedState, SchemaName: t.Schema, TableName: t.Name,
		Message: "the row was changed in Postgres by somebody else while this change waited; on_external_change is database-wins",
	}
}
