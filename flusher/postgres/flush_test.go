package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
	"github.com/headpond/headpond/flusher"
	"github.com/headpond/headpond/migrations"
)

// flushBundle is a store on a migrated database with the table t.
type flushBundle struct {
	*Store
	t    testing.TB
	pool *pgxpool.Pool
	wms  *Watermarks
}

func setupFlush(t testing.TB, ddl string, partitions int) *flushBundle {
	t.Helper()
	return setupFlushAt(t, uptest.Migrated(t, migrations.Up), ddl, partitions)
}

func setupFlushAt(t testing.TB, url, ddl string, partitions int) *flushBundle {
	t.Helper()
	require.NoError(t, migrations.Up(t.Context(), url))
	pool, err := NewPool(t.Context(), url, PoolOptions{MaxConns: 6})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	_, err = pool.Exec(t.Context(), ddl)
	require.NoError(t, err)
	b := &flushBundle{t: t, pool: pool, wms: NewWatermarks(pool)}
	b.Store = NewStore(pool, func(name string) *table.Table { return loadTables(t, pool)[name] })
	var places []buffer.Place
	for p := range partitions {
		places = append(places, buffer.Place{Table: "t", Partition: p})
	}
	require.NoError(t, b.wms.Hold(t.Context(), places, func(buffer.Place, buffer.Held) (buffer.Opening, error) {
		return buffer.Opening{Epoch: 1, Why: "first"}, nil
	}))
	return b
}

// frameOf makes a frame after a watermark. The columns are those of the lines.
func frameOf(after table.ID, columns string, lines ...string) *table.Frame {
	f := &table.Frame{Columns: []byte(strings.ReplaceAll(columns, ",", "\t"))}
	for _, l := range lines {
		f.Add(table.OpInsert, time.Now().UnixMicro(), []byte(strings.ReplaceAll(l, ",", "\t")+"\n"))
	}
	f.Last = table.ID{Epoch: 1, Seq: after.Seq + uint64(len(lines))}
	return f
}

// give answers every claim with the same lines.
func give(columns string, lines ...string) flusher.Load {
	return func(_ context.Context, claims []flusher.Claim) ([]flusher.Part, error) {
		var out []flusher.Part
		for _, c := range claims {
			out = append(out, flusher.Part{Claim: c, Frames: []*table.Frame{frameOf(c.Watermark, columns, lines...)}})
		}
		return out, nil
	}
}

// numbered gives the columns of the frames that load gives their numbers in the
// catalog; unknown is that of a column that the table does not have.
func (b *flushBundle) numbered(load flusher.Load) flusher.Load {
	const unknown = 999
	return func(ctx context.Context, claims []flusher.Claim) ([]flusher.Part, error) {
		parts, err := load(ctx, claims)
		t := b.lookup("t")
		for _, p := range parts {
			for _, f := range p.Frames {
				names := table.HeaderNames(f.Columns)
				for i, name := range names {
					number := unknown
					if c, ok := t.Column(name); ok {
						number = t.Columns[c].Number
					}
					names[i] = fmt.Sprintf("%d.0:%s", number, name)
				}
				f.Columns = []byte(strings.Join(names, "\t"))
			}
		}
		return parts, err
	}
}

func (b *flushBundle) flush(load flusher.Load, partitions ...int) (*flusher.Report, error) {
	return b.Flush(context.Background(), flusher.Batch{
		Table: "t", Partitions: partitions, Load: b.numbered(load), Orphan: func(context.Context, string) error { return nil },
	})
}

func (b *flushBundle) count(sql string, args ...any) (n int) {
	b.t.Helper()
	require.NoError(b.t, b.pool.QueryRow(b.t.Context(), sql, args...).Scan(&n))
	return n
}

func (b *flushBundle) progress() buffer.Progress {
	b.t.Helper()
	all, err := b.wms.Progress(b.t.Context())
	require.NoError(b.t, err)
	return all[0]
}

const intTable = `create table t (id int primary key, v int check (v < 100), w text)`

func TestFlushIsAtomic(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, intTable, 2)
	r, err := b.flush(give("id,v,w", "1,10,a", `2,\N,b`), 0)
	require.NoError(t, err)
	require.Len(t, r.Parts, 1)
	require.Empty(t, r.Dead)
	require.False(t, r.Committed.Before(r.Copied))
	require.Equal(t, 2, b.count(`select count(*) from t`))
	p := b.progress()
	require.Equal(t, table.ID{Epoch: 1, Seq: 2}, p.Watermark)
	require.EqualValues(t, 2, p.Committed)

	// What fails after the rows were copied takes the rows with it.
	_, err = b.pool.Exec(t.Context(), `
		create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no' using errcode = '57014'; end $$;
		create trigger refuse before update on headpond.watermarks for each row execute function refuse()`)
	require.NoError(t, err)
	_, err = b.flush(give("id,v,w", "3,1,c"), 0)
	require.Error(t, err)
	require.Equal(t, 2, b.count(`select count(*) from t`), "no row without its watermark")
	_, err = b.pool.Exec(t.Context(), `drop trigger refuse on headpond.watermarks`)
	require.NoError(t, err)
	_, err = b.flush(give("id,v,w", "3,1,c"), 0)
	require.NoError(t, err)
	require.Equal(t, table.ID{Epoch: 1, Seq: 3}, b.progress().Watermark)
}

func TestFlushSkipsLocked(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, intTable, 3)
	entered, leave := make(chan []flusher.Claim), make(chan struct{})
	done := make(chan error, 1)
	go func() {
		_, err := b.flush(func(_ context.Context, claims []flusher.Claim) ([]flusher.Part, error) {
			entered <- claims
			<-leave
			return nil, nil
		}, 0, 1)
		done <- err
	}()
	require.Len(t, <-entered, 2)
	r, err := b.flush(give("id,v,w", "1,1,x"), 0, 1, 2)
	require.NoError(t, err)
	require.Len(t, r.Parts, 1, "partitions 0 and 1 are held by the other")
	require.Equal(t, 2, r.Parts[0].Place.Partition)
	close(leave)
	require.NoError(t, <-done)
}

func TestPoisonRows(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, intTable+`; insert into t values (7, 7, 'there already')`, 1)
	var lines []string
	want := map[uint64]string{}
	for i := 1; i <= 3000; i++ {
		v := i % 100
		switch {
		case i == 1, i == 1500, i == 1501, i == 3000:
			v = 100 // first, middle, neighbours, last
			want[uint64(i)] = "23514"
		case i == 7:
			want[7] = "23505"
		}
		lines = append(lines, fmt.Sprintf("%d,%d,x", i, v))
	}
	lines[99] = "100,abc,x"
	want[100] = "22P02"
	r, err := b.flush(give("id,v,w", lines...), 0)
	require.NoError(t, err)
	require.Len(t, r.Dead[r.Parts[0].Place], len(want))
	require.Equal(t, 3000-len(want)+1, b.count(`select count(*) from t`))
	p := b.progress()
	require.EqualValues(t, 3000, p.Watermark.Seq)
	require.EqualValues(t, len(want), p.Dead)
	require.EqualValues(t, 3000-len(want), p.Committed)
	dead, err := b.wms.Dead(t.Context(), r.Parts[0].Place, 0, 3000)
	require.NoError(t, err)
	got := map[uint64]string{}
	for _, d := range dead {
		got[d.ID.Seq] = d.SQLState
	}
	require.Equal(t, want, got)
	var key, constraint, column, row string
	require.NoError(t, b.pool.QueryRow(t.Context(), `select key, constraint_name, "row"::text from headpond.dead_letters where seq = 1500`).
		Scan(&key, &constraint, &row))
	require.Equal(t, "1500", key)
	require.Equal(t, "t_v_check", constraint)
	require.JSONEq(t, `{"id":1500,"v":100,"w":"x"}`, row)
	require.NoError(t, b.pool.QueryRow(t.Context(), `select column_name from headpond.dead_letters where seq = 100`).Scan(&column))
	require.Equal(t, "v", column)
	found, err := b.DeadBetween(t.Context(), r.Parts[0].Place, 6, 100)
	require.NoError(t, err)
	require.Equal(t, []buffer.DeadRow{{Key: "7", ID: table.ID{Epoch: 1, Seq: 7}}, {Key: "100", ID: table.ID{Epoch: 1, Seq: 100}}}, found)
}

// Errors of triggers that fire after the statement name no line.
func TestPoisonRowsWithoutALine(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, `create table parent (id int primary key); insert into parent select generate_series(1, 500);
		create table t (id int primary key, parent int references parent deferrable initially deferred)`, 1)
	var lines []string
	for i := 1; i <= 400; i++ {
		p := i
		if i == 17 || i == 333 {
			p = 9999
		}
		lines = append(lines, fmt.Sprintf("%d,%d", i, p))
	}
	r, err := b.flush(give("id,parent", lines...), 0)
	require.NoError(t, err)
	require.Equal(t, 398, b.count(`select count(*) from t`))
	dead := r.Dead[r.Parts[0].Place]
	require.Len(t, dead, 2)
	require.EqualValues(t, 17, dead[0].ID.Seq)
	require.EqualValues(t, 333, dead[1].ID.Seq)
}

func TestAllRowsPoisonedInSeveralRuns(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, intTable, 1)
	load := func(_ context.Context, claims []flusher.Claim) ([]flusher.Part, error) {
		first := frameOf(claims[0].Watermark, "id,v,w", "1,1,a", "2,2,b")
		second := frameOf(first.Last, "id,v", "3,3", "3,4", "4,100", "5,5") // another column list
		third := frameOf(second.Last, "id,v,w", "6,100,c", "7,100,d")
		return []flusher.Part{{Claim: claims[0], Frames: []*table.Frame{first, second, third}}}, nil
	}
	_, err := b.flush(load, 0)
	require.NoError(t, err)
	require.Equal(t, 4, b.count(`select count(*) from t where (id, v) in ((1, 1), (2, 2), (3, 3), (5, 5))`), "the rows of an earlier run survive a later one's errors")
	require.Equal(t, 4, b.count(`select count(*) from t`))
	require.EqualValues(t, 4, b.progress().Dead)
}

func TestSchemaErrorsHalt(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, intTable+`; create function no() returns trigger language plpgsql as $$ begin raise 'no' using errcode = '42501'; end $$;
		create trigger no before insert on t for each row execute function no()`, 1)
	_, err := b.flush(give("id,v,w", "1,1,a"), 0)
	var f *FlushError
	require.ErrorAs(t, err, &f)
	require.True(t, f.Halts())
	require.ErrorContains(t, err, "42501")
	execute(t, b.pool, `drop trigger no on t`)
	_, err = b.pool.Exec(t.Context(), `alter table t rename to moved`)
	require.NoError(t, err)
	_, err = b.flush(give("id,v,w", "1,1,a"), 0)
	require.ErrorAs(t, err, &f)
	require.True(t, f.Halts())
	require.Zero(t, b.count(`select count(*) from headpond.dead_letters`))
	_, err = b.pool.Exec(t.Context(), `alter table moved rename to t`)
	require.NoError(t, err)
	_, err = b.flush(give("id,v,w", "1,1,a"), 0)
	require.NoError(t, err)
}

// A type that changed under the log is read anew from text: right, or refused.
func TestTypeChangedUnderTheLog(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, `create table t (id int primary key, v bigint)`, 1)
	_, err := b.flush(give("id,v", "1,42"), 0)
	require.NoError(t, err)
	_, err = b.pool.Exec(t.Context(), `alter table t alter v type double precision`)
	require.NoError(t, err)
	_, err = b.flush(give("id,v", "2,42"), 0)
	require.NoError(t, err)
	require.Equal(t, 2, b.count(`select count(*) from t where v = 42`))
}

func TestLineOf(t *testing.T) {
	t.Parallel()
	for where, want := range map[string]int{
		`COPY t, line 12, column v: "abc"`: 12,
		`COPY t, line 3: "1	2"`:            3,
		`COPY t, line 4`:                   4,
		"SQL statement \"x\"\nPL/pgSQL function f() line 3 at RAISE\nCOPY t, line 9": 9,
		`COPY a, line 7, x, line 2`:             2,
		`PL/pgSQL function f() line 3 at RAISE`: 0,
		``:                                      0,
	} {
		n, ok := lineOf(&pgconn.PgError{Where: where})
		require.Equal(t, want, n, where)
		require.Equal(t, want > 0, ok)
	}
}

// A row whose parent is not there yet puts its batch off, when it is told to.
func TestOrphansAreAskedFor(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, `create schema other; create table other.parent (id int primary key);
		create table t (id int primary key, parent int references other.parent)`, 1)
	var asked []string
	wait := errors.New("wait")
	_, err := b.Flush(t.Context(), flusher.Batch{
		Table: "t", Partitions: []int{0}, Load: b.numbered(give("id,parent", "1,1", "2,2", `3,\N`)),
		Orphan: func(_ context.Context, parent string) error { asked = append(asked, parent); return wait },
	})
	require.ErrorIs(t, err, wait)
	require.Equal(t, []string{"other.parent"}, asked)
	require.Zero(t, b.count(`select count(*) from headpond.dead_letters`))
	_, err = b.pool.Exec(t.Context(), `insert into other.parent values (1)`)
	require.NoError(t, err)
	r, err := b.flush(give("id,parent", "1,1", "2,2", `3,\N`), 0)
	require.NoError(t, err)
	require.Len(t, r.Dead[r.Parts[0].Place], 1)
	require.Equal(t, 2, b.count(`select count(*) from t`))
}
