package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// Watermarks reads and holds the rows of headpond.watermarks: one for each
// partition, which is both its progress and its lock.
type Watermarks struct{ pool *pgxpool.Pool }

// NewWatermarks on a pool. Safe for concurrent use.
func NewWatermarks(pool *pgxpool.Pool) *Watermarks { return &Watermarks{pool: pool} }

// Hold creates the rows that are missing, locks all of them in one
// transaction, and calls open with each: while it runs, nobody can move them.
// The epochs that open gives are stored.
func (w *Watermarks) Hold(ctx context.Context, places []buffer.Place, open func(buffer.Place, buffer.Held) (buffer.Opening, error)) error {
	if len(places) == 0 {
		return nil
	}
	return pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		held, err := lock(ctx, tx, places)
		if err != nil {
			return err
		}
		var fresh []buffer.Place
		var opened []buffer.Opening
		for _, h := range held {
			o, err := open(h.place, buffer.Held{Watermark: h.id, Opened: h.opened})
			if err != nil {
				return err
			}
			if o.Epoch > h.opened {
				fresh, opened = append(fresh, h.place), append(opened, o)
			}
		}
		return storeOpenings(ctx, tx, fresh, opened)
	})
}

func lock(ctx context.Context, tx pgx.Tx, places []buffer.Place) ([]watermark, error) {
	names, parts := columns(places)
	_, err := tx.Exec(ctx, `
		insert into headpond.watermarks (table_name, partition, epoch, seq)
		select t, p, 0, 0 from unnest($1::text[], $2::int[]) as x (t, p) order by t, p
		on conflict do nothing`, names, parts)
	if err != nil {
		return nil, fmt.Errorf("create watermarks: %w", err)
	}
	rows, err := tx.Query(ctx, `
		select w.table_name, w.partition, w.epoch, w.seq, w.opened
		from headpond.watermarks w
		join unnest($1::text[], $2::int[]) as x (t, p) on w.table_name = x.t and w.partition = x.p
		order by w.table_name, w.partition for update of w`, names, parts)
	if err != nil {
		return nil, fmt.Errorf("lock watermarks: %w", err)
	}
	held, err := pgx.CollectRows(rows, scanWatermark)
	if err != nil {
		return nil, fmt.Errorf("lock watermarks: %w", err)
	}
	return held, nil
}

type watermark struct {
	place  buffer.Place
	id     table.ID
	opened uint64
	dead   int64 // of a claim
}

func scanWatermark(row pgx.CollectableRow) (w watermark, err error) {
	var epoch, seq, opened int64
	err = row.Scan(&w.place.Table, &w.place.Partition, &epoch, &seq, &opened)
	w.opened = uint64(opened)                               //nolint:gosec // never negative
	w.id = table.ID{Epoch: uint64(epoch), Seq: uint64(seq)} //nolint:gosec // never negative
	return w, err
}

func scanClaim(row pgx.CollectableRow) (w watermark, err error) {
	var epoch, seq, opened int64
	err = row.Scan(&w.place.Table, &w.place.Partition, &epoch, &seq, &opened, &w.dead)
	w.id = table.ID{Epoch: uint64(epoch), Seq: uint64(seq)} //nolint:gosec // never negative
	return w, err
}

func columns(places []buffer.Place) (names []string, parts []int32) {
	for _, p := range places {
		names = append(names, p.Table)
		parts = append(parts, int32(p.Partition)) //nolint:gosec // partitions are few
	}
	return names, parts
}

// Places that ever were.
func (w *Watermarks) Places(ctx context.Context) ([]buffer.Place, error) {
	rows, err := w.pool.Query(ctx, `select table_name, partition from headpond.watermarks order by 1, 2`)
	if err != nil {
		return nil, fmt.Errorf("list partitions: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (p buffer.Place, err error) {
		return p, row.Scan(&p.Table, &p.Partition)
	})
}

// Progress of all partitions of all tables.
func (w *Watermarks) Progress(ctx context.Context) ([]buffer.Progress, error) {
	rows, err := w.pool.Query(ctx, `
		select table_name, partition, epoch, seq, committed, coalesced, dead, lost
		from headpond.watermarks order by table_name, partition`)
	if err != nil {
		return nil, fmt.Errorf("read watermarks: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (p buffer.Progress, err error) {
		var epoch, seq int64
		err = row.Scan(&p.Place.Table, &p.Place.Partition, &epoch, &seq, &p.Committed, &p.Coalesced, &p.Dead, &p.Lost)
		p.Watermark = table.ID{Epoch: uint64(epoch), Seq: uint64(seq)} //nolint:gosec // never negative
		return p, err
	})
}

// Dead lists the dead letters of a place after a seq, up to another, those that
// were discarded lately, and those whose replay ended as one of these.
func (w *Watermarks) Dead(ctx context.Context, p buffer.Place, after, upto uint64) ([]buffer.DeadLetter, error) {
	rows, err := w.pool.Query(ctx, `
		select epoch, seq, sqlstate, message, true, false from headpond.dead_letters
		where table_name = $1 and partition = $2 and seq > $3 and seq <= $4
		union all
		select epoch, seq, sqlstate, message || ' (discarded by an operator)', false, false from headpond.discarded
		where table_name = $1 and partition = $2 and seq > $3 and seq <= $4
		union all
		select epoch, seq, '', '', false, true from headpond.replays
		where table_name = $1 and partition = $2 and seq > $3 and seq <= $4 order by seq`,
		p.Table, p.Partition, int64(after), int64(upto)) //nolint:gosec // below 2^53
	if err != nil {
		return nil, fmt.Errorf("read dead letters: %w", err)
	}
	var out []buffer.DeadLetter
	var epoch, seq int64
	var sqlstate, message string
	var lies, replayed, anyReplayed bool
	_, err = pgx.ForEachRow(rows, []any{&epoch, &seq, &sqlstate, &message, &lies, &replayed}, func() error {
		if anyReplayed = anyReplayed || replayed; replayed {
			return nil
		}
		name := letterOf(p.Partition, epoch, seq)
		d := buffer.DeadLetter{ID: name.ID, SQLState: sqlstate, Message: message}
		if lies {
			d.Lies = name
		}
		out = append(out, d)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read dead letters: %w", err)
	}
	if !anyReplayed { // nearly always
		return out, nil
	}
	return w.withReplayed(ctx, p, after, upto, out)
}

// Watermark of one place.
func (w *Watermarks) Watermark(ctx context.Context, p buffer.Place) (table.ID, error) {
	var epoch, seq int64
	err := w.pool.QueryRow(ctx, `select epoch, seq from headpond.watermarks where table_name = $1 and partition = $2`,
		p.Table, p.Partition).Scan(&epoch, &seq)
	if err != nil {
		return table.ID{}, fmt.Errorf("read watermark: %w", err)
	}
	return table.ID{Epoch: uint64(epoch), Seq: uint64(seq)}, nil //nolint:gosec // never negative
}
