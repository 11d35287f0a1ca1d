package postgres

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/headpond/headpond/buffer/table"
)

// Keys gives the primary keys of rows to each, one after the other, in rows
// that are Missing but for their key; each must not keep them. where is SQL, empty
// for all rows; limit is 0 for no limit. It ends where each gives an error. The
// transaction is read-only, and where is the operator's own: whoever may run
// this may read the database.
func (e *Edge) Keys(ctx context.Context, t *table.Table, where string, limit int64, each func(table.Row) error) error {
	conn, err := e.pool.Acquire(ctx)
	if err != nil {
		return storeError("read keys", err)
	}
	defer conn.Release()
	pg := conn.Conn().PgConn()
	if _, err := pg.Exec(ctx, "begin read only").ReadAll(); err != nil {
		return storeError("read keys", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	result := pg.ExecParams(ctx, keysQuery(t, where, limit), nil, nil, nil, nil)
	row := make(table.Row, len(t.Columns))
	for err == nil && result.NextRow() {
		for i, text := range result.Values() {
			row[t.Key[i]] = cellOf(text)
		}
		if err = each(row); err != nil {
			cancel() // or Close would read the rest
		}
	}
	_, closed := result.Close()
	_ = pg.Close(context.WithoutCancel(ctx)) // it is in a transaction, perhaps in the middle of a result
	if err == nil && closed != nil {
		return keysError(t, closed)
	}
	return err
}

// CountRows that Keys would give, however long that takes.
func (e *Edge) CountRows(ctx context.Context, t *table.Table, where string, limit int64) (n int64, err error) {
	err = pgx.BeginTxFunc(ctx, e.pool, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		return tx.QueryRow(ctx, "select count(*) from ("+keysQuery(t, where, limit)+") x").Scan(&n)
	})
	if err != nil {
		return 0, keysError(t, err)
	}
	return n, nil
}

func keysQuery(t *table.Table, where string, limit int64) string {
	names := make([]string, len(t.Key))
	for i, k := range t.Key {
		names[i] = quote(t.Columns[k].Name)
	}
	sql := "select " + strings.Join(names, ", ") + " from " + only(t)
	if where != "" {
		sql += " where (" + where + "\n)" // a comment in it ends here
	}
	if limit > 0 {
		sql += " limit " + strconv.FormatInt(limit, 10)
	}
	return sql
}

// keysError tells the operator what Postgres said of the condition.
func keysError(t *table.Table, err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && !endsSession(pg) {
		return errors.New("read keys table=" + t.Name + ": " + pg.Message + " (SQLSTATE " + pg.Code + ")")
	}
	return storeError("read keys table="+t.Name, err)
}
