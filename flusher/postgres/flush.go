package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher"
)

// Store writes batches. Safe for concurrent use: each Flush has a connection
// and a transaction of its own.
type Store struct {
	pool     *pgxpool.Pool
	lookup   func(name string) *table.Table
	external ExternalCounts
	poisoned poisoned
}

// NewStore on a pool. lookup gives a table as the catalog knows it now, or nil.
func NewStore(pool *pgxpool.Pool, lookup func(name string) *table.Table) *Store {
	return &Store{pool: pool, lookup: lookup}
}

// External is what is counted of others' changes, by Flush and by whoever is
// given it.
func (s *Store) External() *ExternalCounts { return &s.external }

// A flush is cut off after flushTimeout, so that a server that hangs does not
// hold a worker for ever. The server's own limits are tighter and come first.
const flushTimeout = 2 * time.Minute

// settings of the transaction. synchronous_commit: the log is trimmed after
// COMMIT, so a commit must be worth it whatever the role's default is. The
// timeouts bound how long a watermark can stay locked. Deferred constraints
// are checked at once, so that their errors can be pinned on a row. headpond.own
// is for the triggers of watched tables: what this transaction changes need not
// leave the cache.
const settings = `
	select set_config('synchronous_commit', case current_setting('synchronous_commit')
			when 'remote_apply' then 'remote_apply' else 'on' end, true),
		set_config('lock_timeout', '5s', true),
		set_config('statement_timeout', '60s', true),
		set_config('idle_in_transaction_session_timeout', '30s', true),
		set_config('headpond.own', 'on', true)`

// claim locks the watermarks that nobody else holds. SKIP LOCKED is what lets
// any number of workers in any number of processes share the work; the lock
// goes with the connection, so a dead worker holds nothing.
const claim = `
	select table_name, partition, epoch, seq, opened, dead from headpond.watermarks
	where table_name = $1 and partition = any ($2)
	order by partition for update skip locked`

// Flush implements flusher.Store.
func (s *Store) Flush(ctx context.Context, job flusher.Batch) (*flusher.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return nil, flushError(job.Table, err)
	}
	defer conn.Release()
	report, err := s.flush(ctx, conn.Conn(), job)
	for try := 1; errors.Is(err, errChangedMeanwhile) && try < 5; try++ {
		report, err = s.flush(ctx, conn.Conn(), job)
	}
	if err = flushError(job.Table, err); err != nil && flusher.ClassOf(err) == flusher.Unreachable {
		s.pool.Reset() // after a restart all pooled connections are dead; after a demotion none of them can write
	}
	return report, err
}

func (s *Store) flush(ctx context.Context, conn *pgx.Conn, job flusher.Batch) (*flusher.Report, error) {
	t := s.lookup(job.Table)
	if t == nil || t.Unusable != "" {
		return nil, &FlushError{Table: job.Table, class: schemaError, err: unusable(t)}
	}
	tx, claims, haunted, err := begin(ctx, conn, t, job.Partitions)
	if err != nil {
		return nil, err
	}
	defer rollback(ctx, tx)
	report := &flusher.Report{Dead: make(map[buffer.Place][]buffer.DeadRow), Coalesced: make(map[buffer.Place]int64)}
	if len(claims) == 0 {
		return report, nil
	}
	if err := flusher.FailClaimed.Reach(); err != nil {
		return nil, err
	}
	if report.Parts, err = job.Load(ctx, claims); err != nil {
		return nil, err
	}
	if err := flusher.FailRead.Reach(); err != nil {
		return nil, err
	}
	b := &batch{conn: conn, table: t, orphan: s.orphans(job), refuse: job.Refuse, doing: job.Doing, careful: s.poisoned.lately(job.Table)}
	replays := b.replays(report.Parts)
	if err := b.visit(ctx, tx, haunted); err != nil {
		return nil, err
	}
	if err := b.take(ctx, tx, replays); err != nil {
		return nil, err
	}
	if err := b.adapt(); err != nil {
		return nil, err
	}
	yielded, err := b.writeUnlessChanged(ctx, tx, job.DatabaseWins)
	if err != nil {
		return nil, err
	}
	if err := flusher.FailWritten.Reach(); err != nil {
		return nil, err
	}
	report.Copied = time.Now()
	for i := range report.Parts {
		report.Coalesced[report.Parts[i].Place] = b.coalesced[i]
		if b.left != nil {
			report.Coalesced[report.Parts[i].Place] += b.left[i]
		}
	}
	report.Dropped = b.dropped
	for _, d := range b.dead {
		report.Dead[d.place] = append(report.Dead[d.place], buffer.DeadRow{Key: d.key, ID: d.id, SQLState: d.cause.Code})
	}
	s.poisoned.note(job.Table, b.refused)
	if err := advance(ctx, tx, report, b.dead); err != nil {
		return nil, err
	}
	if err := flusher.FailAdvanced.Reach(); err != nil {
		return nil, err
	}
	b.does("committing")
	if report.Unreplicated, err = commit(ctx, conn, tx); err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	report.Committed = time.Now()
	if yielded > 0 {
		s.external.add(nil, map[conflictOf]int64{{job.Table, databaseWins}: int64(yielded)})
	}
	return report, nil
}

// adapt takes rows laid out as the table has its columns now: they may have been
// accepted before ALTER TABLE. Those that hold a value of a type that the column
// no longer has, and that would read as another value, become dead letters.
func (b *batch) adapt() error {
	for i := range b.parts {
		p := &b.parts[i]
		frames := make([]*table.Frame, 0, len(p.Frames))
		for _, f := range p.Frames {
			if f.Lost > 0 {
				continue
			}
			now, stale, err := b.table.Adapt(f)
			if err != nil {
				return err
			}
			from := 0
			for _, row := range slices.Sorted(maps.Keys(stale)) {
				if from < row {
					frames = append(frames, now.Cut(from, row))
				}
				from = row + 1
				cause := retyped(b.table, stale[row])
				if err := b.mayRefuse(cause); err != nil {
					return err
				}
				if err := b.setAside(p, now, row, cause); err != nil {
					return err
				}
			}
			if from == 0 {
				frames = append(frames, now)
			} else if from < now.Len() {
				frames = append(frames, now.Cut(from, now.Len()))
			}
		}
		p.Frames = frames
	}
	return nil
}

func retyped(t *table.Table, column string) *pgconn.PgError {
	return &pgconn.PgError{
		Severity: "ERROR", Code: "42804", SchemaName: t.Schema, TableName: t.Name, ColumnName: column,
		Message: fmt.Sprintf("the type of column %s was changed while this row waited, and its value cannot be taken over", quote(column)),
	}
}

// columnsNow reads the columns of a table that is locked against ALTER TABLE,
// and their places in the primary key, -1 for none. It gives none when another
// table has the name now, which is the one that was locked, or when policies
// hide rows, which a merge would take for missing.
const columnsNow = `
	select a.attnum::int, a.attname::text, a.atttypid, a.atttypmod, a.attgenerated <> '',
		coalesce((select k.n from pg_catalog.pg_index i cross join lateral generate_series(0, i.indnkeyatts - 1) k (n)
			where i.indrelid = a.attrelid and i.indisprimary and i.indkey[k.n] = a.attnum), -1)
	from pg_catalog.pg_class c join pg_catalog.pg_attribute a on a.attrelid = c.oid
	where c.oid = $1 and c.oid = pg_catalog.to_regclass($2) and not c.relrowsecurity and a.attnum > 0 and not a.attisdropped
	order by a.attnum`

// errSchemaChanged passes: the catalog is read again within a second.
var errSchemaChanged = errors.New("the table was altered a moment ago; its catalog is being read again")

// checkColumns compares what is known of the columns with what is there now.
func checkColumns(t *table.Table, rows pgx.Rows) error {
	n, same := 0, true
	var number, place int
	var name string
	var oid uint32
	var mod int32
	var generated bool
	_, err := pgx.ForEachRow(rows, []any{&number, &name, &oid, &mod, &generated, &place}, func() error {
		if n < len(t.Columns) {
			c := &t.Columns[n]
			same = same && c.Number == number && c.Name == name && c.Type.OID == oid && c.Type.Mod == mod && c.Generated == generated && slices.Index(t.Key, n) == place
		}
		n++
		return nil
	})
	if err == nil && (!same || n != len(t.Columns)) {
		err = errSchemaChanged
	}
	return err
}

func unusable(t *table.Table) error {
	if t == nil {
		return errors.New("the table does not exist or is not exposed any more")
	}
	return fmt.Errorf("the table cannot be written: %s", t.Unusable)
}

// begin starts the transaction, locks, and sets the savepoint before the rows,
// all in one round trip. haunted are the partitions that ever had a dead letter.
func begin(ctx context.Context, conn *pgx.Conn, t *table.Table, partitions []int) (tx pgx.Tx, claims []flusher.Claim, haunted map[int]bool, err error) {
	haunted = make(map[int]bool)
	b := &pgx.Batch{}
	b.BeginTx(pgx.TxOptions{})
	b.Queue(settings)
	b.Queue("set constraints all immediate")
	b.Queue("lock table only " + t.SQLName + " in row exclusive mode")
	b.Queue(columnsNow, t.OID, t.SQLName).Query(func(rows pgx.Rows) error { return checkColumns(t, rows) })
	b.Queue(claim, t.Name, partitions).Query(func(rows pgx.Rows) error {
		held, err := pgx.CollectRows(rows, scanClaim)
		for _, h := range held {
			claims = append(claims, flusher.Claim{Place: h.place, Watermark: h.id})
			haunted[h.place.Partition] = h.dead > 0
		}
		return err
	})
	b.Queue("savepoint headpond")
	results := conn.SendBatch(ctx, b)
	tx = results.Tx()
	if err := results.Close(); err != nil {
		rollback(ctx, tx)
		return nil, nil, nil, fmt.Errorf("claim partitions: %w", err)
	}
	return tx, claims, haunted, nil
}

// rollback ends a transaction that was not committed. It has a deadline of its
// own: the flush's may have passed.
func rollback(ctx context.Context, tx pgx.Tx) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_ = tx.Rollback(ctx) // an error closes the connection, which is as good
}

// advance moves the watermarks and their counters, and inserts the dead
// letters: in the transaction of the rows.
func advance(ctx context.Context, tx pgx.Tx, report *flusher.Report, dead []deadLetter) error {
	var tbl string
	var parts []int32
	var before, epochs, seqs, committed, coalesced, buried, lost []int64
	for i := range report.Parts {
		p := &report.Parts[i]
		if len(p.Frames) == 0 {
			continue
		}
		tbl = p.Place.Table
		bad, merged := int64(len(report.Dead[p.Place])), report.Coalesced[p.Place]
		parts = append(parts, int32(p.Place.Partition)) //nolint:gosec // partitions are few
		before = append(before, int64(p.Watermark.Seq)) //nolint:gosec // below 2^53
		epochs = append(epochs, int64(p.Last().Epoch))  //nolint:gosec // below 2^53
		seqs = append(seqs, int64(p.Last().Seq))        //nolint:gosec // below 2^53
		committed = append(committed, int64(p.Rows())-bad-merged)
		coalesced = append(coalesced, merged)
		buried = append(buried, bad)
		lost = append(lost, p.Lost())
	}
	if len(parts) == 0 {
		return touch(ctx, tx, report.Parts)
	}
	tag, err := tx.Exec(ctx, `
		update headpond.watermarks w
		set epoch = x.epoch, seq = x.seq, committed = w.committed + x.committed, coalesced = w.coalesced + x.coalesced,
			dead = w.dead + x.dead, lost = w.lost + x.lost, updated_at = clock_timestamp()
		from unnest($2::int[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[])
			as x (partition, before, epoch, seq, committed, coalesced, dead, lost)
		where w.table_name = $1 and w.partition = x.partition and w.seq = x.before`,
		tbl, parts, before, epochs, seqs, committed, coalesced, buried, lost)
	if err != nil {
		return fmt.Errorf("move watermarks: %w", err)
	}
	if tag.RowsAffected() != int64(len(parts)) {
		return fmt.Errorf("move watermarks table=%s: %d of %d moved: they changed under the lock", tbl, tag.RowsAffected(), len(parts))
	}
	return bury(ctx, tx, dead)
}
