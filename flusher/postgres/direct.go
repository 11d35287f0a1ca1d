package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher"
)

// A request waits for a direct write, so it must not take as long as a flush may.
const directTimeout = 20 * time.Second

// Direct writes to tables whose writes are answered after their COMMIT. Safe for
// concurrent use.
type Direct struct{ pool *pgxpool.Pool }

// NewDirect on a pool of its own: who holds one of its connections may need
// one of the edge's.
func NewDirect(pool *pgxpool.Pool) *Direct { return &Direct{pool: pool} }

// Tx is one transaction. Not safe for concurrent use.
type Tx struct {
	conn  *pgx.Conn
	wrote bool // something was written since the savepoint was set
}

// Transact runs do in a transaction in which the tables are as they are known
// here, and commits it when do gives no error. do's context ends when it takes too
// long. buffer.ErrCommitUnknown says that the COMMIT was not answered; with any
// other error nothing was applied.
func (d *Direct) Transact(ctx context.Context, tables []*table.Table, do func(context.Context, *Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, directTimeout)
	defer cancel()
	again, err := d.try(ctx, tables, do)
	if again && ctx.Err() == nil { // as in ask
		d.pool.Reset()
		_, err = d.try(ctx, tables, do)
	}
	return err
}

// try reports in again that nothing was begun because of the connection.
func (d *Direct) try(ctx context.Context, tables []*table.Table, do func(context.Context, *Tx) error) (again bool, err error) {
	conn, err := d.pool.Acquire(ctx)
	if err != nil {
		return false, storeError("begin", err)
	}
	defer conn.Release()
	tx, err := beginDirect(ctx, conn.Conn(), tables)
	if err != nil {
		var pg *pgconn.PgError
		return !errors.Is(err, errSchemaChanged) && (!errors.As(err, &pg) || endsSession(pg)), storeError("begin", err)
	}
	return false, d.run(ctx, conn.Conn(), tx, do)
}

func (d *Direct) run(ctx context.Context, conn *pgx.Conn, tx pgx.Tx, do func(context.Context, *Tx) error) error {
	defer rollback(ctx, tx)
	if err := do(ctx, &Tx{conn: conn}); err != nil {
		return err
	}
	if err := flusher.FailDirectHeld.Reach(); err != nil {
		return err
	}
	if ctx.Err() != nil { // the COMMIT would not be sent
		return storeError("commit", ctx.Err())
	}
	err := tx.Commit(ctx)
	if failed := flusher.FailDirectCommitted.Reach(); failed != nil {
		err = failed
	}
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &pg) && !endsSession(pg) || errors.Is(err, pgx.ErrTxCommitRollback):
		return storeError("commit", err)
	}
	return fmt.Errorf("%w: %s", buffer.ErrCommitUnknown, err.Error())
}

// beginDirect is begin without watermarks.
func beginDirect(ctx context.Context, conn *pgx.Conn, tables []*table.Table) (pgx.Tx, error) {
	b := &pgx.Batch{}
	b.BeginTx(pgx.TxOptions{})
	b.Queue(settings)
	b.Queue("set constraints all immediate")
	for _, t := range tables {
		b.Queue("lock table only " + t.SQLName + " in row exclusive mode")
		b.Queue(columnsNow, t.OID, t.SQLName).Query(func(rows pgx.Rows) error { return checkColumns(t, rows) })
	}
	b.Queue("savepoint headpond")
	results := conn.SendBatch(ctx, b)
	tx := results.Tx()
	if err := results.Close(); err != nil {
		rollback(ctx, tx)
		return nil, err
	}
	return tx, nil
}

// Rows gives the rows with these keys, every column in canonical text, nil for
// those that are not there. lock holds them until the transaction ends, in key
// order.
func (x *Tx) Rows(ctx context.Context, t *table.Table, keys [][]table.Cell, lock bool) ([]table.Row, error) {
	out := make([]table.Row, len(keys))
	if len(keys) == 0 {
		return out, nil
	}
	sql, params, oids := rowsByKey(t, keys, lock)
	result := x.conn.PgConn().ExecParams(ctx, sql, params, oids, formatsOf(len(params)), nil).Read()
	if result.Err != nil {
		return nil, storeError("read rows table="+t.Name, result.Err)
	}
	for _, values := range result.Rows {
		n := 0
		if _, err := fmt.Sscan(string(values[0]), &n); err != nil || n < 1 || n > len(keys) {
			return nil, fmt.Errorf("read rows table=%s: row %q", t.Name, values[0])
		}
		row := make(table.Row, 0, len(t.Columns))
		for _, text := range values[1:] {
			row = append(row, cellOf(slices.Clone(text)))
		}
		out[n-1] = row
	}
	return out, nil
}

func formatsOf(n int) []int16 {
	out := make([]int16, n)
	for i := range out {
		out[i] = binaryFormat
	}
	return out
}

// rowsByKey joins the table with the keys. Results are text.
func rowsByKey(t *table.Table, keys [][]table.Cell, lock bool) (sql string, params [][]byte, oids []uint32) {
	key, names, arrays := make([]string, len(t.Key)), make([]string, len(t.Key)), make([]string, len(t.Key))
	for i, k := range t.Key {
		params = append(params, textArray(len(keys), func(n int) table.Cell { return keys[n][i] }))
		arrays[i], names[i] = fmt.Sprintf("$%d::text[]", i+1), fmt.Sprintf("c%d", i+1)
		key[i] = "u." + names[i] + "::" + bottom(t.Columns[k].Type).Bare
	}
	columns := make([]string, len(t.Columns))
	for i := range t.Columns {
		columns[i] = "t." + quote(t.Columns[i].Name)
	}
	sql = "select u.o, " + strings.Join(columns, ", ") + " from unnest(" + strings.Join(arrays, ", ") + ") with ordinality as u (" +
		strings.Join(names, ", ") + ", o) join " + only(t) + " t on " + keyEquals(t, key)
	if lock {
		sql += " order by " + strings.Join(key, ", ") + " for update of t"
	}
	return sql, params, nil
}

// Mark remembers a value under each name, and gives what is remembered of those
// that are there already: the transaction is of no use then.
func (x *Tx) Mark(ctx context.Context, tableName string, names, values []string) (there map[string]string, err error) {
	x.wrote = true
	rows, err := x.conn.Query(ctx, `
		with given as (select * from unnest($2::text[], $3::text[]) as g (name, value)),
			added as (insert into headpond.marks (table_name, name, value)
				select $1, name, value from given order by name on conflict do nothing returning name)
		select name from given except select name from added`, tableName, names, values)
	if err != nil {
		return nil, storeError("mark", err)
	}
	known, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(known) == 0 {
		return nil, storeError("mark", err)
	}
	there = make(map[string]string, len(known))
	// Another statement: it sees what was committed while the first one waited.
	rows, err = x.conn.Query(ctx, "select name, value from headpond.marks where table_name = $1 and name = any ($2)", tableName, known)
	if err != nil {
		return nil, storeError("read marks", err)
	}
	var name, value string
	if _, err := pgx.ForEachRow(rows, []any{&name, &value}, func() error { there[name] = value; return nil }); err != nil {
		return nil, storeError("read marks", err)
	}
	return there, nil
}

// TakeLetters removes the dead letters that rows of the transaction replay, and
// reports which of them were there.
func (x *Tx) TakeLetters(ctx context.Context, tableName string, letters []table.Letter) (there []bool, err error) {
	x.wrote = true
	taken, err := takeLetters(ctx, x.conn, tableName, letters)
	if err != nil {
		return nil, storeError("take dead letters", err)
	}
	there = make([]bool, len(letters))
	var links []stands
	for i, l := range letters {
		was, ok := taken[l]
		if there[i] = ok; ok {
			links = append(links, stands{of: l, key: was.key})
		}
		delete(taken, l)
	}
	return there, storeError("note replays", noteStands(ctx, x.conn, tableName, links))
}

// Write writes the rows of a frame, which are numbered from 0. Those that
// Postgres refuses are not written, and are given with the reason.
func (x *Tx) Write(ctx context.Context, t *table.Table, f *table.Frame) (refused map[int]*table.FieldError, err error) {
	f.Last = table.ID{Epoch: 1, Seq: uint64(f.Len())} //nolint:gosec // small
	b := &batch{conn: x.conn, table: t, orphan: noOrphans, parts: []flusher.Part{{Frames: []*table.Frame{f}}}}
	if x.wrote {
		b.first = moveSavepoint
	}
	x.wrote = true
	if err := b.write(ctx); err != nil {
		return nil, storeError("write rows table="+t.Name, err)
	}
	for _, d := range b.dead {
		if refused == nil {
			refused = make(map[int]*table.FieldError)
		}
		refused[int(d.id.Seq)-1] = refusal(d.cause) //nolint:gosec // small
	}
	return refused, nil
}

// refusal is what a client is told of a row that Postgres does not take.
func refusal(pg *pgconn.PgError) *table.FieldError {
	bad := &table.FieldError{Code: "refused", Column: columnOf(pg), Detail: fmt.Sprintf("%s (SQLSTATE %s)", pg.Message, pg.Code)}
	if pg.Code == "23505" {
		bad.Code = "row_exists"
	}
	return bad
}

// noOrphans: who waits for an answer does not wait for a parent row.
func noOrphans(context.Context, *pgconn.PgError, bool) error { return nil }

// Forget forgets marks that are older than a day, and replays that are older than
// a week, but for those that lead to a dead letter: of a chain the last first.
func (d *Direct) Forget(ctx context.Context) error {
	_, err := d.pool.Exec(ctx, "delete from headpond.marks where at < now() - interval '24 hours'")
	if err != nil {
		return storeError("forget marks", err)
	}
	_, err = d.pool.Exec(ctx, `
		delete from headpond.replays r where r.at < now() - interval '7 days'
			and not exists (select from headpond.replays n where (n.table_name, n.partition, n.seq, n.epoch) = (r.table_name, r.new_partition, r.new_seq, r.new_epoch))
			and not exists (select from headpond.dead_letters n where (n.table_name, n.partition, n.epoch, n.seq) = (r.table_name, r.new_partition, r.new_epoch, r.new_seq))
			and not exists (select from headpond.discarded n where (n.table_name, n.partition, n.epoch, n.seq) = (r.table_name, r.new_partition, r.new_epoch, r.new_seq))`)
	return storeError("forget replays", err)
}
