package postgres

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// A watermark says of a row only that it is done with. What became of one that was
// not written itself is told by what stands for it: headpond.replays leads from a
// dead letter that was taken to the row that replays it. That one may have become a
// dead letter, and have been replayed, and so on: the end of the chain is what
// became of all its rows. Links are added in the transaction that takes the letter,
// and never changed: shortening chains would have to wait for other flushes.

// stands is a link: by stands for the row of; the zero one was written directly.
type stands struct {
	of, by table.Letter
	key    string // of the row of
}

// noteStands adds links.
func noteStands(ctx context.Context, tx querier, tbl string, links []stands) error {
	if len(links) == 0 {
		return nil
	}
	var of, by []table.Letter
	var keys []string
	for _, l := range links {
		of, by, keys = append(of, l.of), append(by, l.by), append(keys, l.key)
	}
	parts, epochs, seqs := lettersAsColumns(of)
	newParts, newEpochs, newSeqs := lettersAsColumns(by)
	_, err := tx.Exec(ctx, `
		insert into headpond.replays (table_name, partition, epoch, seq, key, new_partition, new_epoch, new_seq)
		select $1, x.p, x.e, x.s, x.k, case when x.ns > 0 then x.np end, nullif(x.ne, 0), nullif(x.ns, 0)
		from unnest($2::int[], $3::bigint[], $4::bigint[], $5::text[], $6::int[], $7::bigint[], $8::bigint[]) as x (p, e, s, k, np, ne, ns)
		on conflict (table_name, partition, seq, epoch) do update
		set new_partition = excluded.new_partition, new_epoch = excluded.new_epoch, new_seq = excluded.new_seq, at = excluded.at`,
		tbl, parts, epochs, seqs, keys, newParts, newEpochs, newSeqs)
	return err
}

// fate is what became of a row that another one stands for.
type fate struct {
	id       table.ID
	as       table.Letter // the end of its chain; zero when that was written directly
	at       time.Time    // of the last link
	sqlState string       // empty when it was written
	message  string
	lies     bool // in the dead letters
}

// fates of the rows of a place after a seq, up to another, for which others stand.
func (w *Watermarks) fates(ctx context.Context, p buffer.Place, after, upto uint64) ([]fate, error) {
	rows, err := w.pool.Query(ctx, `
		with recursive chain as (
			select r.epoch, r.seq, r.new_partition as p, r.new_epoch as e, r.new_seq as s, r.at from headpond.replays r
			where r.table_name = $1 and r.partition = $2 and r.seq > $3 and r.seq <= $4
			union all
			select c.epoch, c.seq, r.new_partition, r.new_epoch, r.new_seq, r.at
			from chain c join headpond.replays r on r.table_name = $1 and r.partition = c.p and r.seq = c.s and r.epoch = c.e)
		select c.epoch, c.seq, coalesce(c.p, 0), coalesce(c.e, 0), coalesce(c.s, 0), c.at,
			coalesce(d.sqlstate, g.sqlstate, ''), coalesce(d.message, g.message || ' (discarded by an operator)', ''), d.id is not null
		from chain c
		left join headpond.dead_letters d on d.table_name = $1 and d.partition = c.p and d.epoch = c.e and d.seq = c.s
		left join headpond.discarded g on g.table_name = $1 and g.partition = c.p and g.epoch = c.e and g.seq = c.s
		where not exists (select from headpond.replays r where r.table_name = $1 and r.partition = c.p and r.seq = c.s and r.epoch = c.e)
		order by c.seq`, p.Table, p.Partition, int64(after), int64(upto)) //nolint:gosec // below 2^53
	if err != nil {
		return nil, fmt.Errorf("read replays: %w", err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (f fate, err error) {
		var epoch, seq, newEpoch, newSeq int64
		var partition int
		err = row.Scan(&epoch, &seq, &partition, &newEpoch, &newSeq, &f.at, &f.sqlState, &f.message, &f.lies)
		f.id, f.as = letterOf(0, epoch, seq).ID, letterOf(partition, newEpoch, newSeq)
		return f, err
	})
	if err != nil {
		return nil, fmt.Errorf("read replays: %w", err)
	}
	return out, nil
}

// withReplayed adds to the dead letters of a place those whose replay is one, or was
// discarded.
func (w *Watermarks) withReplayed(ctx context.Context, p buffer.Place, after, upto uint64, dead []buffer.DeadLetter) ([]buffer.DeadLetter, error) {
	all, err := w.fates(ctx, p, after, upto)
	if err != nil {
		return nil, err
	}
	seen := make(map[table.ID]bool, len(dead)) // a flush may have come between the two statements
	for i := range dead {
		seen[dead[i].ID] = true
	}
	for _, f := range all {
		if f.sqlState == "" || seen[f.id] {
			continue
		}
		d := buffer.DeadLetter{ID: f.id, SQLState: f.sqlState, Message: f.message}
		if f.lies {
			d.Lies = f.as
		}
		dead = append(dead, d)
	}
	slices.SortFunc(dead, func(a, b buffer.DeadLetter) int { return cmp.Compare(a.ID.Seq, b.ID.Seq) })
	return dead, nil
}

// Replayed tells what was written for a row that Postgres had refused, nil when
// nothing was.
func (w *Watermarks) Replayed(ctx context.Context, p buffer.Place, id table.ID) (*buffer.Replayed, error) {
	all, err := w.fates(ctx, p, id.Seq-1, id.Seq)
	if err != nil {
		return nil, err
	}
	for _, f := range all {
		if f.id == id && f.sqlState == "" {
			return &buffer.Replayed{As: f.as, At: f.at}, nil
		}
	}
	return nil, nil //nolint:nilnil // nothing was
}
