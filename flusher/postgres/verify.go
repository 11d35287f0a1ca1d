package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// Verifier reads what Redis is compared with. It writes nothing. Safe for
// concurrent use.
type Verifier struct{ pool *pgxpool.Pool }

// NewVerifier on a pool made by NewPool: canonical text needs its settings.
func NewVerifier(pool *pgxpool.Pool) *Verifier { return &Verifier{pool: pool} }

// Account is a partition's watermark with its counters, and how many dead
// letters it has now.
type Account struct {
	buffer.Progress

	Opened      uint64 // highest epoch that was ever opened
	DeadLetters int64
}

// Accounts of all partitions, as they are at one moment.
func (v *Verifier) Accounts(ctx context.Context) ([]Account, error) {
	rows, err := v.pool.Query(ctx, `
		select w.table_name, w.partition, w.epoch, w.seq, w.committed, w.coalesced, w.dead, w.lost, w.opened, coalesce(d.n, 0)
		from headpond.watermarks w
		left join (select table_name, partition, count(*) as n from headpond.dead_letters group by 1, 2) d using (table_name, partition)
		order by 1, 2`)
	if err != nil {
		return nil, storeError("read watermarks", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (a Account, err error) {
		var epoch, seq, opened int64
		err = row.Scan(&a.Place.Table, &a.Place.Partition, &epoch, &seq, &a.Committed, &a.Coalesced, &a.Dead, &a.Lost, &opened, &a.DeadLetters)
		a.Watermark = table.ID{Epoch: uint64(epoch), Seq: uint64(seq)} //nolint:gosec // never negative
		a.Opened = uint64(opened)                                      //nolint:gosec // never negative
		return a, err
	})
	if err != nil {
		return nil, storeError("read watermarks", err)
	}
	return all, nil
}

// DeadKeys gives those of the keys of a table that have dead letters.
func (v *Verifier) DeadKeys(ctx context.Context, name string, keys []string) (map[string]bool, error) {
	rows, err := v.pool.Query(ctx, `select distinct key from headpond.dead_letters where table_name = $1 and key = any ($2)`, name, keys)
	if err != nil {
		return nil, storeError("read dead letters", err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[string])
	dead := make(map[string]bool, len(found))
	for _, key := range found {
		dead[key] = true
	}
	return dead, err
}

// Stored is what Postgres has of a key.
type Stored struct {
	Row table.Row // every column, in canonical text; nil when there is no row
	Err error     // the key cannot be one of the table
}

// Rows reads rows by their keys, which have their parts in key order, and the
// watermark of the place: all as they are at one moment, for it is one statement.
// ErrCatalogStale: the table is not what t says any more.
func (v *Verifier) Rows(ctx context.Context, t *table.Table, p buffer.Place, keys [][]table.Cell) ([]Stored, table.ID, error) {
	out := make([]Stored, len(keys))
	wm, err := v.rows(ctx, t, p, keys, out)
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || !strings.HasPrefix(pg.Code, "22") {
		return out, wm, storeError("read rows table="+t.Name, err)
	}
	if len(keys) == 1 {
		out[0].Err = errors.New(pg.Message)
		return out, wm, nil
	}
	// One of them is no key of the table: the others are read without it.
	half := len(keys) / 2
	first, wm, err := v.Rows(ctx, t, p, keys[:half])
	if err != nil {
		return nil, wm, err
	}
	second, later, err := v.Rows(ctx, t, p, keys[half:])
	if err == nil && later != wm {
		return v.Rows(ctx, t, p, keys) // they are to be of one moment
	}
	return append(first, second...), wm, err
}

func (v *Verifier) rows(ctx context.Context, t *table.Table, p buffer.Place, keys [][]table.Cell, out []Stored) (wm table.ID, err error) {
	if len(keys) == 0 {
		return wm, nil
	}
	var params [][]byte
	var formats []int16
	var names, arrays, casts []string
	for i, k := range t.Key {
		params = append(params, textArray(len(keys), func(n int) table.Cell { return keys[n][i] }))
		formats = append(formats, binaryFormat)
		names, arrays = append(names, fmt.Sprintf("c%d", i)), append(arrays, fmt.Sprintf("$%d::text[]", i+1))
		casts = append(casts, fmt.Sprintf("u.c%d::%s", i, bottom(t.Columns[k].Type).Bare))
	}
	params, formats = append(params, []byte(p.Table), fmt.Append(nil, p.Partition)), append(formats, 0, 0)
	columns := make([]string, len(t.Columns))
	for i := range columns {
		columns[i] = "t." + quote(t.Columns[i].Name)
	}
	sql := fmt.Sprintf(`select %s, (select epoch || '-' || seq from headpond.watermarks where table_name = $%d and partition = $%d::int),
		(t.tableoid is not null)::text
		from unnest(%s) with ordinality as u (%s, o) left join %s t on %s order by u.o`,
		strings.Join(columns, ", "), len(params)-1, len(params), strings.Join(arrays, ", "), strings.Join(names, ", "), only(t), keyEquals(t, casts))
	conn, err := v.pool.Acquire(ctx)
	if err != nil {
		return wm, err
	}
	defer conn.Release()
	result := conn.Conn().PgConn().ExecParams(ctx, sql, params, nil, formats, nil).Read()
	if result.Err != nil {
		return wm, result.Err
	}
	if len(result.Rows) != len(keys) {
		return wm, fmt.Errorf("%d rows for %d keys: %w", len(result.Rows), len(keys), errTwoRows)
	}
	if !describes(result.FieldDescriptions[:len(columns)], t) {
		return wm, ErrCatalogStale
	}
	for i, values := range result.Rows {
		if text := values[len(columns)]; text != nil {
			wm, _ = table.ParseID(string(text))
		}
		if string(values[len(columns)+1]) != "true" {
			continue
		}
		out[i].Row = make(table.Row, len(columns))
		for c := range columns {
			out[i].Row[c] = cellOf(values[c])
		}
	}
	return wm, nil
}
