package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// storeOpenings keeps the epochs that were opened, in the transaction that holds
// the watermarks.
func storeOpenings(ctx context.Context, tx pgx.Tx, places []buffer.Place, opened []buffer.Opening) error {
	if len(places) == 0 {
		return nil
	}
	names, parts := columns(places)
	var epochs, keptEpochs, keptSeqs []int64
	var whys []string
	for _, o := range opened {
		epochs, whys = append(epochs, int64(o.Epoch)), append(whys, o.Why) //nolint:gosec // below 2^53
		keptEpochs = append(keptEpochs, int64(o.Kept.Epoch))               //nolint:gosec // below 2^53
		keptSeqs = append(keptSeqs, int64(o.Kept.Seq))                     //nolint:gosec // below 2^53
	}
	_, err := tx.Exec(ctx, `
		with opened as (
			update headpond.watermarks w set opened = x.epoch
			from unnest($1::text[], $2::int[], $3::bigint[]) as x (t, p, epoch)
			where w.table_name = x.t and w.partition = x.p
		)
		insert into headpond.epochs (table_name, partition, epoch, why, kept_epoch, kept_seq, recorded_at)
		select t, p, epoch, why, ke, ks, case why when 'first' then now() end
		from unnest($1::text[], $2::int[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[]) as x (t, p, epoch, why, ke, ks)
		on conflict do nothing`, names, parts, epochs, whys, keptEpochs, keptSeqs)
	if err != nil {
		return fmt.Errorf("store opened epochs: %w", err)
	}
	return nil
}

// Record implements buffer.Watermarks.
func (w *Watermarks) Record(ctx context.Context, r buffer.Recovery) error {
	return pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		// Redis may have opened it just before the process died that was to store it.
		tag, err := tx.Exec(ctx, `
			insert into headpond.epochs (table_name, partition, epoch, why, kept_epoch, kept_seq, recorded_at, replayed, lost, lost_from, lost_to)
			values ($1, $2, $3, $4, $5, $6, now(), $7, $8, nullif($9, 0), nullif($10, 0))
			on conflict (table_name, partition, epoch) do update
			set recorded_at = now(), replayed = excluded.replayed, lost = excluded.lost, lost_from = excluded.lost_from, lost_to = excluded.lost_to
			where epochs.recorded_at is null`,
			r.Place.Table, r.Place.Partition, int64(r.Epoch), r.Why, int64(r.Kept.Epoch), int64(r.Kept.Seq), //nolint:gosec // below 2^53
			r.Replayed, r.Lost, int64(r.From), int64(r.To)) //nolint:gosec // below 2^53
		if err != nil {
			return fmt.Errorf("record epoch: %w", err)
		}
		if tag.RowsAffected() == 0 {
			return nil
		}
		_, err = tx.Exec(ctx, `
			delete from headpond.epochs where table_name = $1 and partition = $2 and epoch < $3 and opened_at < now() - interval '30 days'`,
			r.Place.Table, r.Place.Partition, int64(r.Epoch)) //nolint:gosec // below 2^53
		if err != nil {
			return fmt.Errorf("forget old epochs: %w", err)
		}
		return storeMoves(ctx, tx, r)
	})
}

func storeMoves(ctx context.Context, tx pgx.Tx, r buffer.Recovery) error {
	var epochs, seqs, to []int64
	var rows []int32
	for _, m := range r.Moves {
		epochs, seqs = append(epochs, int64(m.From.Epoch)), append(seqs, int64(m.From.Seq)) //nolint:gosec // below 2^53
		to, rows = append(to, int64(m.To.Seq)), append(rows, int32(m.Rows))                 //nolint:gosec // below 2^53
	}
	_, err := tx.Exec(ctx, `
		insert into headpond.moves (table_name, partition, new_epoch, epoch, seq, rows, new_seq)
		select $1, $2, $3, x.* from unnest($4::bigint[], $5::bigint[], $6::int[], $7::bigint[]) as x on conflict do nothing`,
		r.Place.Table, r.Place.Partition, int64(r.Epoch), epochs, seqs, rows, to) //nolint:gosec // below 2^53
	if err != nil {
		return fmt.Errorf("record moves: %w", err)
	}
	return nil
}

// Skip counts the rows after a watermark, up to one, as lost: they were committed
// before Postgres went back, and nobody has them any more.
func (w *Watermarks) Skip(ctx context.Context, p buffer.Place, from, upto uint64) error {
	tag, err := w.pool.Exec(ctx, `
		update headpond.watermarks set seq = $4, lost = lost + $4 - seq, updated_at = now()
		where table_name = $1 and partition = $2 and seq = $3`, p.Table, p.Partition, int64(from), int64(upto)) //nolint:gosec // below 2^53
	if err != nil {
		return fmt.Errorf("skip rows partition=%s: %w", p, err)
	}
	if tag.RowsAffected() != 1 {
		return fmt.Errorf("skip rows partition=%s: the watermark is not at %d any more", p, from)
	}
	return nil
}

// Events gives the newest recoveries in which rows were missing, or which are
// not done yet, newest first.
func (w *Watermarks) Events(ctx context.Context, limit int) ([]buffer.Event, error) {
	rows, err := w.pool.Query(ctx, `
		select opened_at, table_name, partition, epoch, why, replayed, lost, coalesce(lost_from, 0), coalesce(lost_to, 0), recorded_at is not null
		from headpond.epochs where (replayed > 0 or lost > 0 or why = 'rewind' or recorded_at is null) and opened_at > now() - interval '7 days'
		order by opened_at desc, table_name, partition limit $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("read epochs: %w", err)
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (e buffer.Event, err error) {
		var epoch, from, to int64
		err = row.Scan(&e.At, &e.Table, &e.Partition, &epoch, &e.Why, &e.Replayed, &e.Lost, &from, &to, &e.Open)
		e.Epoch, e.From, e.To = uint64(epoch), uint64(from), uint64(to) //nolint:gosec // never negative
		return e, err
	})
}

// Recorded implements buffer.Watermarks.
func (w *Watermarks) Recorded(ctx context.Context, p buffer.Place, after uint64) ([]buffer.Recovery, error) {
	rows, err := w.pool.Query(ctx, `
		select e.epoch, e.why, e.kept_epoch, e.kept_seq, e.replayed, e.lost, m.epoch, m.seq, m.rows, m.new_seq
		from headpond.epochs e left join headpond.moves m on (m.table_name, m.partition, m.new_epoch) = (e.table_name, e.partition, e.epoch)
		where e.table_name = $1 and e.partition = $2 and e.epoch > $3 and e.recorded_at is not null
		order by e.epoch, m.new_seq`, p.Table, p.Partition, int64(after)) //nolint:gosec // below 2^53
	if err != nil {
		return nil, fmt.Errorf("read epochs: %w", err)
	}
	var out []buffer.Recovery
	var epoch, keptEpoch, keptSeq, replayed, lost int64
	var why string
	var fromEpoch, fromSeq, newSeq *int64
	var n *int
	_, err = pgx.ForEachRow(rows, []any{&epoch, &why, &keptEpoch, &keptSeq, &replayed, &lost, &fromEpoch, &fromSeq, &n, &newSeq}, func() error {
		if len(out) == 0 || out[len(out)-1].Epoch != uint64(epoch) { //nolint:gosec // never negative
			out = append(out, buffer.Recovery{
				Place: p, Epoch: uint64(epoch), Why: why, Replayed: replayed, Lost: lost, //nolint:gosec // never negative
				Kept: table.ID{Epoch: uint64(keptEpoch), Seq: uint64(keptSeq)}, //nolint:gosec // never negative
			})
		}
		if fromSeq != nil {
			r := &out[len(out)-1]
			r.Moves = append(r.Moves, buffer.Move{
				From: table.ID{Epoch: uint64(*fromEpoch), Seq: uint64(*fromSeq)}, //nolint:gosec // never negative
				To:   table.ID{Epoch: r.Epoch, Seq: uint64(*newSeq)},             //nolint:gosec // never negative
				Rows: *n,
			})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read epochs: %w", err)
	}
	return out, nil
}
