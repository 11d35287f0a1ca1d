package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// Letters is the dead-letter table, as operators see it. Safe for concurrent use.
type Letters struct{ pool *pgxpool.Pool }

// NewLetters on a pool.
func NewLetters(pool *pgxpool.Pool) *Letters { return &Letters{pool: pool} }

// Bounds of what a list holds of each letter, in bytes: the row for people is
// left out when it is larger, texts are cut.
const (
	mostListedRow  = 4 << 10
	mostListedText = 1 << 10
)

// letterColumns are those of scanLetter. $1 is the most bytes of a row, $2 of a
// text. Of an empty table name the letter is nobody's: it was made by hand.
const letterColumns = `
	d.id, coalesce(d.table_name, ''), coalesce(d.partition, 0), coalesce(d.epoch, 0), coalesce(d.seq, 0), coalesce(d.key, ''),
	d.operation, d.ignores_existing, d.sqlstate, left(d.message, $2), coalesce(left(d.detail, $2), ''),
	coalesce(d.constraint_name, ''), coalesce(d.column_name, ''),
	case when octet_length(d."row"::text) <= $1 then d."row"::text else '' end, coalesce(octet_length(d."row"::text), 0),
	coalesce(d.trace_id, ''), coalesce(d.span_id, ''), d.accepted_at, d.dead_lettered_at, d.replayed_at, d.replays, coalesce(d.parked_epoch, 0), coalesce(d.parked_seq, 0),
	coalesce((select f.id from headpond.dead_letters f
		where f.table_name = d.table_name and f.partition = d.partition and f.epoch = d.parked_epoch and f.seq = d.parked_seq), 0),
	(select count(*) from headpond.dead_letters f
		where f.table_name = d.table_name and f.partition = d.partition and f.parked_epoch = d.epoch and f.parked_seq = d.seq)`

func scanLetter(row pgx.CollectableRow) (l buffer.Letter, err error) {
	var into letterRow
	err = row.Scan(into.places(&l)...)
	into.finish(&l)
	return l, err
}

// letterRow is what stands between a row and a letter.
type letterRow struct {
	epoch, seq, behindEpoch, behindSeq int64
	op, trace, span                    string
	ignores                            bool
	replayed                           *time.Time
}

func (r *letterRow) places(l *buffer.Letter) []any {
	return []any{
		&l.Number, &l.Table, &l.Name.Partition, &r.epoch, &r.seq, &l.Key, &r.op, &r.ignores, &l.SQLState, &l.Message, &l.Detail,
		&l.Constraint, &l.Column, &l.Row, &l.RowBytes, &r.trace, &r.span, &l.Accepted, &l.Died, &r.replayed, &l.Replays, &r.behindEpoch, &r.behindSeq,
		&l.BehindNumber, &l.Parked,
	}
}

func (r *letterRow) finish(l *buffer.Letter) {
	l.Name.ID = letterOf(0, r.epoch, r.seq).ID
	l.Behind = letterOf(0, r.behindEpoch, r.behindSeq).ID
	l.Span, _ = table.ParseSpan(r.trace, r.span)
	if r.replayed != nil {
		l.Replayed = *r.replayed
	}
	for _, op := range []table.Op{table.OpInsert, table.OpPut, table.OpPatch, table.OpIncrement, table.OpDelete} {
		if op.String() == r.op {
			l.Op = op
		}
	}
	if l.Op == table.OpInsert && r.ignores {
		l.Op = table.OpIgnore
	}
}

// chosen is the condition of a filter; its parameters are $3 and the following.
const chosen = `
	($3 = '' or d.table_name = $3) and ($4 = '' or d.sqlstate = $4) and (not $5::bool or coalesce(d.constraint_name, '') = $6)`

func choose(f *buffer.LetterFilter) []any {
	sqlstate, constraint, has := f.State()
	return []any{f.Table, sqlstate, has, constraint}
}

// List gives dead letters, the newest first, without what a replay writes.
func (s *Letters) List(ctx context.Context, f buffer.LetterFilter) ([]buffer.Letter, error) {
	args := append([]any{mostListedRow, mostListedText}, choose(&f)...)
	rows, err := s.pool.Query(ctx, `
		select `+letterColumns+` from headpond.dead_letters d
		where `+chosen+` and ($7::bigint = 0 or d.id < $7) order by d.id desc limit $8`, append(args, f.After, f.Limit)...)
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	out, err := pgx.CollectRows(rows, scanLetter)
	if err != nil {
		return nil, fmt.Errorf("list dead letters: %w", err)
	}
	return out, nil
}

// OfKey gives the dead letters of one row, the newest first.
func (s *Letters) OfKey(ctx context.Context, name, key string, most int) ([]buffer.Letter, error) {
	rows, err := s.pool.Query(ctx, `
		select `+letterColumns+` from headpond.dead_letters d
		where d.table_name = $3 and d.key = $4 order by d.id desc limit $5`, mostListedRow, mostListedText, name, key, most)
	if err != nil {
		return nil, fmt.Errorf("list dead letters of a key: %w", err)
	}
	out, err := pgx.CollectRows(rows, scanLetter)
	if err != nil {
		return nil, fmt.Errorf("list dead letters of a key: %w", err)
	}
	return out, nil
}

// mostGroups bounds an answer: the reasons are few, unless a SQLSTATE is made
// up by a trigger.
const mostGroups = 1000

// Groups counts the chosen dead letters by table and reason, the most first.
func (s *Letters) Groups(ctx context.Context, f buffer.LetterFilter) ([]buffer.LetterGroup, error) {
	args := append([]any{mostListedRow, mostListedText}, choose(&f)...)
	rows, err := s.pool.Query(ctx, `
		with groups as (
			select d.table_name, d.sqlstate, d.constraint_name, count(*) as n, min(d.dead_lettered_at) as first, max(d.dead_lettered_at) as last,
				max(d.id) as sample
			from headpond.dead_letters d where `+chosen+`
			group by 1, 2, 3 order by n desc, 1, 2, 3 limit `+fmt.Sprint(mostGroups)+`)
		select g.n, g.first, g.last, `+letterColumns+`
		from groups g join headpond.dead_letters d on d.id = g.sample order by g.n desc, g.table_name, g.sqlstate, g.constraint_name`, args...)
	if err != nil {
		return nil, fmt.Errorf("group dead letters: %w", err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (g buffer.LetterGroup, err error) {
		var into letterRow
		err = row.Scan(append([]any{&g.Letters, &g.First, &g.Last}, into.places(&g.Sample)...)...)
		into.finish(&g.Sample)
		g.Table, g.SQLState, g.Constraint = g.Sample.Table, g.Sample.SQLState, g.Sample.Constraint
		return g, err
	})
	if err != nil {
		return nil, fmt.Errorf("group dead letters: %w", err)
	}
	return out, nil
}

// wholeLetter is letterColumns and what a replay writes.
const wholeLetter = letterColumns + `, d.columns, d."values"`

func scanWhole(row pgx.CollectableRow) (l buffer.Letter, err error) {
	var into letterRow
	err = row.Scan(append(into.places(&l), &l.Columns, &l.Values)...)
	into.finish(&l)
	return l, err
}

// A row was accepted in a body of bounded size; this bounds what is shown of it.
const mostShown = 64 << 20

// Get gives one dead letter, nil when there is none of this number.
func (s *Letters) Get(ctx context.Context, number int64) (*buffer.Letter, error) {
	rows, err := s.pool.Query(ctx, `select `+wholeLetter+` from headpond.dead_letters d where d.id = $3`, mostShown, mostShown, number)
	if err != nil {
		return nil, fmt.Errorf("read dead letter: %w", err)
	}
	l, err := pgx.CollectExactlyOneRow(rows, scanWhole)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil //nolint:nilnil // there is none
	}
	if err != nil {
		return nil, fmt.Errorf("read dead letter: %w", err)
	}
	return &l, nil
}

// Parked gives the letters that are parked behind others of a table, in the order
// in which they were accepted, at most so many.
func (s *Letters) Parked(ctx context.Context, tbl string, behind []table.Letter, most int) ([]buffer.Letter, error) {
	parts, epochs, seqs := lettersAsColumns(behind)
	return s.whole(ctx, `
		join unnest($4::int[], $5::bigint[], $6::bigint[]) as x (p, e, s)
			on d.partition = x.p and d.parked_epoch = x.e and d.parked_seq = x.s
		where d.table_name = $3 order by d.partition, d.epoch, d.seq limit $7`, tbl, parts, epochs, seqs, most)
}

// Replayable gives chosen letters of a table that wait for no other, in the order
// in which they were accepted in each partition, those after the given one.
func (s *Letters) Replayable(ctx context.Context, f buffer.LetterFilter, after table.Letter) ([]buffer.Letter, error) {
	return s.whole(ctx, `
		where `+chosen+`
			and (d.partition, d.epoch, d.seq) > ($7, $8, $9)
			and not exists (select from headpond.dead_letters f where f.table_name = d.table_name and f.partition = d.partition
				and f.epoch = d.parked_epoch and f.seq = d.parked_seq)
		order by d.partition, d.epoch, d.seq limit $10`,
		append(choose(&f), after.Partition, int64(after.ID.Epoch), int64(after.ID.Seq), f.Limit)...) //nolint:gosec // below 2^53
}

// mostReplayedRow: larger rows are read only when their letter is replayed alone.
const mostReplayedRow = 1 << 20

// whole reads letters with what a replay writes; the parameters of rest are $3
// and the following.
func (s *Letters) whole(ctx context.Context, rest string, args ...any) ([]buffer.Letter, error) {
	rows, err := s.pool.Query(ctx, "select "+wholeLetter+" from headpond.dead_letters d "+rest, append([]any{mostReplayedRow, mostListedText}, args...)...)
	if err != nil {
		return nil, fmt.Errorf("read dead letters: %w", err)
	}
	out, err := pgx.CollectRows(rows, scanWhole)
	if err != nil {
		return nil, fmt.Errorf("read dead letters: %w", err)
	}
	return out, nil
}

// NoteReplayed notes that replays of letters were accepted: for people, and for
// nothing else.
func (s *Letters) NoteReplayed(ctx context.Context, numbers []int64) error {
	_, err := s.pool.Exec(ctx, "update headpond.dead_letters set replayed_at = now() where id = any ($1)", numbers)
	if err != nil {
		return fmt.Errorf("note replays: %w", err)
	}
	return nil
}

// keepReceipts is what a discard does beside its DELETE, the relation gone: see
// headpond.discarded.
const keepReceipts = `
	kept as (insert into headpond.discarded (table_name, partition, epoch, seq, key, sqlstate, message)
		select table_name, partition, epoch, seq, coalesce(key, ''), sqlstate, left(message, 200) from gone
		where table_name is not null and partition is not null and epoch is not null and seq is not null
		on conflict do nothing),
	old as (delete from headpond.discarded where at < now() - interval '7 days')`

// Discard deletes one dead letter; parked is how many were parked behind it, and
// can be replayed by themselves now. A replay that is still on its way finds it
// gone and is left out.
func (s *Letters) Discard(ctx context.Context, number int64) (there bool, parked int, err error) {
	err = s.pool.QueryRow(ctx, `
		with gone as (delete from headpond.dead_letters where id = $1 returning *),`+keepReceipts+`
		select count(distinct g.id) > 0, count(f.id) from gone g left join headpond.dead_letters f
			on f.table_name = g.table_name and f.partition = g.partition and f.parked_epoch = g.epoch and f.parked_seq = g.seq and f.id <> g.id`,
		number).Scan(&there, &parked)
	if err != nil {
		return false, 0, fmt.Errorf("discard dead letter: %w", err)
	}
	return there, parked, nil
}

// DiscardAll deletes the chosen dead letters, at most Limit, the oldest first.
func (s *Letters) DiscardAll(ctx context.Context, f buffer.LetterFilter) (n int64, err error) {
	args := append([]any{0, 0}, choose(&f)...)
	err = s.pool.QueryRow(ctx, `
		with chosen as (select $1::int, $2::int, d.id from headpond.dead_letters d where `+chosen+` order by d.id limit $7 for update of d),
			gone as (delete from headpond.dead_letters d using chosen where d.id = chosen.id returning d.*),`+keepReceipts+`
		select count(*) from gone`, append(args, f.Limit)...).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("discard dead letters: %w", err)
	}
	return n, nil
}

// Counts is how many dead letters each table has now.
func (s *Letters) Counts(ctx context.Context) (map[string]int64, error) {
	rows, err := s.pool.Query(ctx, "select table_name, count(*) from headpond.dead_letters where table_name is not null group by table_name")
	if err != nil {
		return nil, fmt.Errorf("count dead letters: %w", err)
	}
	out := make(map[string]int64)
	var name string
	var n int64
	_, err = pgx.ForEachRow(rows, []any{&name, &n}, func() error { out[name] = n; return nil })
	if err != nil {
		return nil, fmt.Errorf("count dead letters: %w", err)
	}
	return out, nil
}
