package postgres

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// Cache is where rows leave when others change them in Postgres. upto is the
// watermark of each place, and the keys that are given back are those with
// operations above it: see buffer.Outdate.
type Cache interface {
	Outdate(ctx context.Context, keys map[buffer.Place][]string, upto map[buffer.Place]uint64) ([]buffer.Kept, error)
	OutdateTable(ctx context.Context, table string, partitions int, upto map[buffer.Place]uint64) ([]buffer.Kept, error)
	TouchLists(ctx context.Context, table string) error
}

// Watched is a table whose rows may lie in the cache.
type Watched struct {
	Table        *table.Table
	Partitions   int
	DatabaseWins bool // operations that wait when a change is found are set aside
}

// Watcher takes what others changed (headpond.changes) out of the cache.
type Watcher struct {
	pool   *pgxpool.Pool
	cache  Cache
	tables func() map[string]Watched
	counts *ExternalCounts
	log    *slog.Logger
}

// NewWatcher makes a watcher. tables gives those that are served now, by their
// names in paths; changes of others stay where they are.
func NewWatcher(pool *pgxpool.Pool, cache Cache, tables func() map[string]Watched, counts *ExternalCounts, log *slog.Logger) *Watcher {
	return &Watcher{pool: pool, cache: cache, tables: tables, counts: counts, log: log}
}

// A look costs 50 µs, so five a second keep the delay well below a second. One
// that takes longer than watchTimeout is begun anew: what was done in Redis is
// done.
const (
	watchEvery   = 200 * time.Millisecond
	watchAgain   = time.Second // after a failure
	watchTimeout = time.Minute
)

// Run looks until ctx ends. Any number of processes may run one: they share the
// work.
func (w *Watcher) Run(ctx context.Context) error {
	complained := false
	for {
		more, err := w.look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		wait := watchEvery
		switch {
		case err != nil:
			if wait = watchAgain; !complained {
				w.log.Warn("rows that others change in Postgres do not leave the cache; it is tried again every second", "error", err)
			}
		case complained:
			w.log.Info("rows that others change in Postgres leave the cache again")
		}
		complained = err != nil
		if more {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// look does what there is to do, at most one batch, and reports whether there
// may be more.
func (w *Watcher) look(ctx context.Context) (more bool, err error) {
	tables := w.tables()
	if len(tables) == 0 {
		return false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, watchTimeout)
	defer cancel()
	var some bool
	err = w.pool.QueryRow(ctx, "select exists (select from headpond.changes) or exists (select from headpond.conflicts)").Scan(&some)
	if err != nil || !some {
		return false, storeError("look for changes", err)
	}
	return w.Once(ctx)
}

// Once takes one batch, and reports whether there may be more. It lets go of the
// batch only when Redis has done its part: a process that dies, or a Redis that
// is away, leaves it to the next.
func (w *Watcher) Once(ctx context.Context) (more bool, err error) {
	var done *outdating
	err = pgx.BeginFunc(ctx, w.pool, func(tx pgx.Tx) error {
		o := &outdating{tx: tx, cache: w.cache, tables: w.tables()}
		done = o
		return o.run(ctx)
	})
	if err != nil {
		return false, storeOrCacheError(err)
	}
	w.counts.add(done.found, done.conflicts)
	return done.more, nil
}

// storeOrCacheError: what the cache says is said already.
func storeOrCacheError(err error) error {
	if errors.Is(err, buffer.ErrUnavailable) {
		return err
	}
	return storeError("take changes out of the cache", err)
}

// The most entries of one batch. An entry has up to a thousand keys.
const (
	mostChanges   = 200
	mostConflicts = 5000
)

// outdating is one batch.
type outdating struct {
	tx     pgx.Tx
	cache  Cache
	tables map[string]Watched

	changes []change
	due     []buffer.Kept // of headpond.conflicts: their operation is committed now
	upto    map[buffer.Place]uint64
	kept    []keptKey

	found     map[string]int64 // keys, by table; a whole table counts once
	conflicts map[conflictOf]int64
	more      bool
}

type change struct {
	id         int64
	table      string
	columns    []int
	keys       [][]string
	whole, own bool
}

type keptKey struct {
	buffer.Kept
	own bool // no conflict: seen before, or made by a transaction of Headpond
}

func (o *outdating) run(ctx context.Context) error {
	if err := o.take(ctx); err != nil || len(o.changes)+len(o.due) == 0 {
		return err
	}
	o.found, o.conflicts = make(map[string]int64), make(map[conflictOf]int64)
	for _, own := range []bool{false, true} {
		if err := o.outdate(ctx, own); err != nil {
			return err
		}
	}
	for name := range o.touched() {
		if err := o.cache.TouchLists(ctx, name); err != nil {
			return err
		}
	}
	return o.finish(ctx)
}

// take locks a batch: what others hold is theirs. Watermarks are read in a
// statement of their own, after the changes were seen, so that a commit that
// came before a change counts.
func (o *outdating) take(ctx context.Context) error {
	names := slices.Sorted(maps.Keys(o.tables))
	b := &pgx.Batch{}
	b.Queue(`select set_config('synchronous_commit', 'off', true), set_config('lock_timeout', '5s', true),
		set_config('idle_in_transaction_session_timeout', '90s', true)`)
	b.Queue(`
		select id, table_name, coalesce(columns, '{}'), coalesce(keys, '{}'), keys is null, own from headpond.changes
		where table_name = any ($1) order by id limit $2 for update skip locked`, names, mostChanges).Query(func(rows pgx.Rows) error {
		return each(rows, func() ([]any, func()) {
			var c change
			return []any{&c.id, &c.table, &c.columns, &c.keys, &c.whole, &c.own}, func() { o.changes = append(o.changes, c) }
		})
	})
	b.Queue(`
		select w.table_name, w.partition, c.key, c.epoch, c.seq from headpond.watermarks w cross join lateral (
			select key, epoch, seq from headpond.conflicts c
			where c.table_name = w.table_name and c.partition = w.partition and (c.epoch, c.seq) <= (w.epoch, w.seq)
			limit $2 for update skip locked) c
		where w.table_name = any ($1) limit $2`, names, mostConflicts).Query(func(rows pgx.Rows) error {
		return each(rows, func() ([]any, func()) {
			var k buffer.Kept
			return []any{&k.Place.Table, &k.Place.Partition, &k.Key, &k.ID.Epoch, &k.ID.Seq}, func() { o.due = append(o.due, k) }
		})
	})
	b.Queue("select table_name, partition, seq from headpond.watermarks where table_name = any ($1)", names).Query(func(rows pgx.Rows) error {
		o.upto = make(map[buffer.Place]uint64)
		return each(rows, func() ([]any, func()) {
			var p buffer.Place
			var seq uint64
			return []any{&p.Table, &p.Partition, &seq}, func() { o.upto[p] = seq }
		})
	})
	if err := o.tx.SendBatch(ctx, b).Close(); err != nil {
		return err
	}
	o.more = len(o.changes) == mostChanges || len(o.due) == mostConflicts
	return nil
}

// outdate takes the keys of the batch out of the cache: those that others
// changed, or those that cannot be a conflict.
func (o *outdating) outdate(ctx context.Context, own bool) error {
	keys := make(map[buffer.Place]map[string]bool)
	add := func(p buffer.Place, key string) {
		if keys[p] == nil {
			keys[p] = make(map[string]bool)
		}
		keys[p][key] = true
	}
	whole := make(map[string]bool)
	for _, c := range o.changes {
		if c.own != own {
			continue
		}
		w := o.tables[c.table]
		if c.whole || !c.fits(w.Table) {
			whole[c.table] = true
			continue
		}
		for _, key := range c.keys {
			text := keyOf(w.Table, key)
			add(buffer.Place{Table: c.table, Partition: table.Partition(text, w.Partitions)}, string(text))
		}
	}
	for _, k := range o.due {
		if own {
			add(k.Place, k.Key)
		}
	}
	lists := make(map[buffer.Place][]string, len(keys))
	for p, some := range keys {
		if !own {
			o.found[p.Table] += int64(len(some))
		}
		if !whole[p.Table] {
			lists[p] = slices.Collect(maps.Keys(some))
		}
	}
	kept, err := o.cache.Outdate(ctx, lists, o.upto)
	if err != nil {
		return err
	}
	for name := range whole {
		some, err := o.cache.OutdateTable(ctx, name, o.tables[name].Partitions, o.upto)
		if err != nil {
			return err
		}
		kept = append(kept, some...)
		if !own {
			o.found[name]++
		}
	}
	for _, k := range kept {
		o.kept = append(o.kept, keptKey{k, own})
	}
	return nil
}

// fits reports whether the keys are of the primary key that the table has now.
func (c *change) fits(t *table.Table) bool {
	if len(c.columns) != len(t.Key) {
		return false
	}
	for i, k := range t.Key {
		if t.Columns[k].Number != c.columns[i] {
			return false
		}
	}
	return true
}

// keyOf is the key text of a row with these values in its key columns.
func keyOf(t *table.Table, values []string) []byte {
	row := make(table.Row, len(t.Columns))
	for i, k := range t.Key {
		row[k] = table.Cell{State: table.Set, Text: []byte(values[i])}
	}
	return t.AppendKey(nil, row)
}

func (o *outdating) touched() map[string]bool {
	names := make(map[string]bool)
	for _, c := range o.changes {
		names[c.table] = true
	}
	for _, k := range o.due {
		names[k.Place.Table] = true
	}
	return names
}

// finish remembers the keys that were kept, and forgets what is done.
func (o *outdating) finish(ctx context.Context) error {
	b := &pgx.Batch{}
	if len(o.due) > 0 {
		var names, keys []string
		var parts []int32
		for _, k := range o.due {
			names, parts, keys = append(names, k.Place.Table), append(parts, int32(k.Place.Partition)), append(keys, k.Key) //nolint:gosec // partitions are few
		}
		b.Queue(`
			delete from headpond.conflicts c using unnest($1::text[], $2::int[], $3::text[]) as x (t, p, k)
			where c.table_name = x.t and c.partition = x.p and c.key = x.k`, names, parts, keys)
	}
	if len(o.kept) > 0 {
		names, parts, keys, epochs, seqs, loses := o.keptColumns()
		b.Queue(`
			insert into headpond.conflicts as c (table_name, partition, key, epoch, seq, loses)
			select * from unnest($1::text[], $2::int[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[]) order by 1, 2, 3
			on conflict (table_name, partition, key) do update set epoch = excluded.epoch, seq = excluded.seq,
				loses = case when c.epoch = excluded.epoch then greatest(c.loses, excluded.loses) else excluded.loses end
			where (c.epoch, c.seq) <= (excluded.epoch, excluded.seq)`,
			names, parts, keys, epochs, seqs, loses)
	}
	ids := make([]int64, len(o.changes))
	for i := range o.changes {
		ids[i] = o.changes[i].id
	}
	b.Queue("delete from headpond.changes where id = any ($1)", ids)
	return o.tx.SendBatch(ctx, b).Close()
}

// keptColumns counts the conflicts, too.
func (o *outdating) keptColumns() (names []string, parts []int32, keys []string, epochs, seqs, loses []int64) {
	at := make(map[buffer.Place]map[string]int)
	for i := range o.kept {
		k := &o.kept[i]
		wins := o.tables[k.Place.Table].DatabaseWins
		if !k.own && !wins {
			o.conflicts[conflictOf{k.Place.Table, bufferWins}]++
		}
		if at[k.Place] == nil {
			at[k.Place] = make(map[string]int)
		}
		n, known := at[k.Place][k.Key]
		if !known {
			n = len(keys)
			at[k.Place][k.Key] = n
			names, parts, keys = append(names, k.Place.Table), append(parts, int32(k.Place.Partition)), append(keys, k.Key) //nolint:gosec // partitions are few
			epochs, seqs, loses = append(epochs, int64(k.ID.Epoch)), append(seqs, int64(k.ID.Seq)), append(loses, 0)        //nolint:gosec // below 2^53
		}
		if !k.own && wins {
			loses[n] = int64(k.ID.Seq) //nolint:gosec // below 2^53
		}
	}
	return names, parts, keys, epochs, seqs, loses
}
