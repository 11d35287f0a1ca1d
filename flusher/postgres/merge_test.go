package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher"
)

// operations makes a frame of words such as "n 1|5|x|1=3": operation, values,
// and changes.
func operations(after table.ID, columns string, words ...string) *table.Frame {
	f := &table.Frame{Columns: []byte(strings.ReplaceAll(columns, ",", "\t")), Last: table.ID{Epoch: 1, Seq: after.Seq + uint64(len(words))}}
	for _, w := range words {
		f.Add(table.Op(w[0]), time.Now().UnixMicro(), []byte(strings.ReplaceAll(w[2:], "|", "\t")+"\n"))
	}
	return f
}

// apply flushes operations into partition 0.
func (b *flushBundle) apply(columns string, words ...string) (*flusher.Report, error) {
	return b.flush(func(_ context.Context, claims []flusher.Claim) ([]flusher.Part, error) {
		return []flusher.Part{{Claim: claims[0], Frames: []*table.Frame{operations(claims[0].Watermark, columns, words...)}}}, nil
	}, 0)
}

// rows are the table's, as records in key order.
func (b *flushBundle) rows(sql string) (out []string) {
	b.t.Helper()
	rows, err := b.pool.Query(b.t.Context(), sql)
	require.NoError(b.t, err)
	out, err = pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(b.t, err)
	return out
}

func (b *flushBundle) table() []string { return b.rows("select x::text from t x order by x") }

// letters are the dead letters: seq, operation, SQLSTATE, key, what was written, row.
func (b *flushBundle) letters() []string {
	return b.rows(`select concat_ws(' ', seq, operation, sqlstate, key, columns, "values", "row") from headpond.dead_letters order by seq`)
}

// A table without a key can only be copied into: the merge would refuse it.
func TestInsertsAloneAreCopied(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, "create table t (id int, v int)", 1)
	_, err := b.apply("id,v", "i 1|1", "i 1|1")
	require.NoError(t, err)
	require.Equal(t, []string{"(1,1)", "(1,1)"}, b.table())
	_, err = b.apply("id,v", "i 1|1", "p 1|1")
	var f *FlushError
	require.ErrorAs(t, err, &f)
	require.True(t, f.Halts(), err)
	require.ErrorIs(t, err, flusher.ErrKeyChanged)
}

func TestMergeDeadLetters(t *testing.T) {
	t.Parallel()
	const there = "; insert into t values (1, 10, 'a'), (2, 20, 'b'), (3, 30, 'c')"
	for name, c := range map[string]struct{ log, table, letters []string }{
		"a put": {
			[]string{"p 1|100|x", "p 2|21|x"},
			[]string{"(1,10,a)", "(2,21,x)", "(3,30,c)"},
			[]string{`1 put 23514 1 {id,v,w} {1,100,x} {"v": 100, "w": "x", "id": 1}`},
		},
		"a patch: its key, what it sets, and the row": {
			[]string{"u 1|100|x|1", `u 2|21|\N|2`},
			[]string{"(1,10,a)", "(2,20,)", "(3,30,c)"},
			[]string{`1 patch 23514 1 {id,v} {1,100} {"v": 100, "w": "x", "id": 1}`},
		},
		"an increment: its key, what it adds, and the row": {
			[]string{"n 1|15|a|1=5", "n 3|105|c|1=75", "n 1|20|a|1=5"},
			[]string{"(1,20,a)", "(2,20,b)", "(3,30,c)"},
			[]string{`2 increment 23514 3 {id,v} {3,75} {"v": 105, "w": "c", "id": 3}`},
		},
		"a delete": {
			[]string{`d 3|\N|\N`, `d 1|\N|\N`, `d 9|\N|\N`},
			[]string{"(2,20,b)", "(3,30,c)"},
			[]string{`1 delete P0001 3 {id} {3} {"v": null, "w": null, "id": 3}`},
		},
		"an insert, and those after it": {
			[]string{"i 1|1|x", "n 1|2|x|1=1", "u 1|2|y|2"},
			[]string{"(1,11,y)", "(2,20,b)", "(3,30,c)"},
			[]string{`1 insert 23505 1 {id,v,w} {1,1,x} {"v": 1, "w": "x", "id": 1}`},
		},
		"one in the middle": {
			[]string{"n 2|30|b|1=10", "u 2|200|b|1", "u 2|200|z|2", "p 4|4|d"},
			[]string{"(1,10,a)", "(2,30,z)", "(3,30,c)", "(4,4,d)"},
			[]string{`2 patch 23514 2 {id,v} {2,200} {"v": 200, "w": "b", "id": 2}`},
		},
		"all of a key": {
			[]string{"p 5|500|e", "u 5|500|f|2", "n 5|501|f|1=1"},
			[]string{"(1,10,a)", "(2,20,b)", "(3,30,c)"},
			[]string{
				`1 put 23514 5 {id,v,w} {5,500,e} {"v": 500, "w": "e", "id": 5}`,
				`2 patch 23514 5 {id,w} {5,f} {"v": 500, "w": "f", "id": 5}`,
				`3 increment 23514 5 {id,v} {5,1} {"v": 501, "w": "f", "id": 5}`,
			},
		},
		"a sum that its type cannot hold": {
			[]string{"n 1|11|a|1=1", "n 2|0|b|1=2147483647"},
			[]string{"(1,11,a)", "(2,20,b)", "(3,30,c)"},
			[]string{`2 increment 22003 2 {id,v} {2,2147483647} {"v": 0, "w": "b", "id": 2}`},
		},
		"an ignore of another constraint": {
			[]string{"g 1|1|x", "g 4|4|b", "g 5|5|e"},
			[]string{"(1,10,a)", "(2,20,b)", "(3,30,c)", "(5,5,e)"},
			[]string{`2 insert 23505 4 {id,v,w} {4,4,b} {"v": 4, "w": "b", "id": 4}`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setupFlush(t, `create table t (id int primary key, v int check (v < 100), w text unique);
				create function keep() returns trigger language plpgsql as $$ begin raise exception 'kept'; end $$;
				create trigger keep before delete on t for each row when (old.id = 3) execute function keep()`+there, 1)
			_, err := b.apply("id,v,w", c.log...)
			require.NoError(t, err)
			require.Equal(t, c.table, b.table())
			require.Equal(t, c.letters, b.letters())
			p := b.progress()
			require.EqualValues(t, len(c.letters), p.Dead)
			require.EqualValues(t, len(c.log), p.Committed+p.Coalesced+p.Dead)
		})
	}
}

func TestMergeLedger(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, intTable, 2)
	r, err := b.flush(func(_ context.Context, claims []flusher.Claim) ([]flusher.Part, error) {
		return []flusher.Part{
			{Claim: claims[0], Frames: []*table.Frame{
				operations(claims[0].Watermark, "id,v,w", "i 1|1|a", "n 1|2|a|1=1", "n 1|3|a|1=1", "p 2|2|b", "p 4|100|d", "u 4|100|e|2"),
			}},
			{Claim: claims[1], Frames: []*table.Frame{operations(claims[1].Watermark, "id,v,w", "p 3|2|b", `d 3|\N|\N`)}},
		}, nil
	}, 0, 1)
	require.NoError(t, err)
	require.Equal(t, map[buffer.Place]int64{{Table: "t"}: 2, {Table: "t", Partition: 1}: 1}, r.Coalesced)
	require.Equal(t, []string{"0 2 2 2", "1 1 1 0"},
		b.rows("select concat_ws(' ', partition, committed, coalesced, dead) from headpond.watermarks order by partition"))
}

// A row may need what another key's operation in the same batch leaves: in
// whatever order the kinds are written, it is tried once more at the end.
func TestMergeWaitsForOtherKeys(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, `create table t (id int primary key, parent int references t, w text unique);
		insert into t values (1, null, 'one'), (2, 1, 'two')`, 1)
	var asked []string
	_, err := b.Flush(t.Context(), flusher.Batch{
		Table: "t", Partitions: []int{0},
		Load: b.numbered(func(_ context.Context, claims []flusher.Claim) ([]flusher.Part, error) {
			return []flusher.Part{{Claim: claims[0], Frames: []*table.Frame{operations(claims[0].Watermark, "id,parent,w",
				`p 5|\N|five`, "i 4|5|four", // the insert refers to the put
				`u 1|\N|uno|2`, `i 6|\N|one`, // the insert takes what the patch frees
				`u 2|\N|two|1`, `d 1|\N|\N`, // the delete waits for the patch
			)}}}, nil
		}),
		Orphan: func(_ context.Context, parent string) error { asked = append(asked, parent); return nil },
	})
	require.NoError(t, err)
	require.Empty(t, b.letters())
	require.Empty(t, asked, "the parent was in the batch")
	require.Equal(t, []string{"(2,,two)", "(4,5,four)", "(5,,five)", "(6,,one)"}, b.table())
}

// When the parents are rows of another table, the batch is put off at the first
// orphan, before each of its rows has been tried.
func TestMergeAsksForOrphans(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, `create table parent (id int primary key); create sequence tries;
		create function try() returns trigger language plpgsql as $$ begin perform nextval('tries'); return new; end $$;
		create table t (id int primary key, parent int references parent);
		create trigger try before insert on t for each row execute function try()`, 1)
	asked := 0
	wait := errors.New("wait")
	_, err := b.Flush(t.Context(), flusher.Batch{
		Table: "t", Partitions: []int{0},
		Load: b.numbered(func(_ context.Context, claims []flusher.Claim) ([]flusher.Part, error) {
			return []flusher.Part{{Claim: claims[0], Frames: []*table.Frame{operations(claims[0].Watermark, "id,parent", "p 1|2", "p 2|2", "p 3|2")}}}, nil
		}),
		Orphan: func(context.Context, string) error { asked++; return wait },
	})
	require.ErrorIs(t, err, wait)
	require.Equal(t, 1, asked)
	require.Equal(t, 3, b.count("select last_value from tries"))
	require.Empty(t, b.table())
	require.Empty(t, b.letters())
}

// Nothing is cut off: what the column cannot hold any more is refused.
func TestMergeTypes(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, `
		create schema other; create type other.mood as enum ('sad', 'glad'); create domain other.small as varchar(3);
		create domain other.positive as numeric(6,2) check (value > 0); create type other.spot as (x int, label text);
		create table t (k char(4), m other.mood, a text[], j jsonb, raw bytea, s other.small, v varchar(3), amount other.positive, at timestamptz,
			spot other.spot, i interval, b bit(3), "odd ""name" xml, "char" "char", primary key (k, m))`, 1)
	const columns = `k,m,a,j,raw,s,v,amount,at,spot,i,b,odd "name,char`
	const first = `ab  |sad|{"x,y",NULL,"\\"q\\\\"}|{"k": [1, null]}|\\x00ff|abc|abc|1.50|2026-01-02 03:04:05.6+00|(1,"a b")|1 mon -02:00:00|101|<a/>|x`
	_, err := b.apply(columns, "p "+first)
	require.NoError(t, err)
	require.Empty(t, b.letters())
	before := b.table()
	_, err = b.apply(columns, "u "+first+"|2,3,4,5,6,8,9,10,11,12,13", "n "+strings.Replace(first, "1.50", "3.75", 1)+"|7=2.25", "p "+strings.Replace(first, "|sad|", "|glad|", 1))
	require.NoError(t, err)
	require.Empty(t, b.letters())
	require.Contains(t, b.table(), strings.Replace(before[0], "1.50", "3.75", 1))
	require.Len(t, b.table(), 2)
	for _, longer := range []string{"p " + strings.Replace(first, "|abc|abc|", "|abcd|abc|", 1), "u " + strings.Replace(first, "|abc|abc|", "|abc|abcd|", 1) + "|6",
		"p " + strings.Replace(first, "|101|", "|1011|", 1), "n " + first + "|7=-10"} {
		r, err := b.apply(columns, longer)
		require.NoError(t, err)
		require.Len(t, r.Dead[r.Parts[0].Place], 1, longer)
	}
}

// Rows of tables that inherit are not under the key; those of partitions are.
func TestMergeFamilies(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, `create table t (id int primary key, v int); create table heir (primary key (id)) inherits (t);
		insert into t values (1, 1), (2, 2); insert into heir values (1, 1), (2, 2), (3, 3)`, 1)
	_, err := b.apply("id,v", "n 1|6|1=5", `d 2|\N`, "u 3|9|1")
	require.NoError(t, err)
	require.Equal(t, []string{"(1,6)", "(3,9)"}, b.rows("select x::text from only t x order by id"))
	require.Equal(t, []string{"(1,1)", "(2,2)", "(3,3)"}, b.rows("select x::text from heir x order by id"))

	b = setupFlush(t, `create table t (id int primary key, v int) partition by range (id);
		create table low partition of t for values from (0) to (5); create table high partition of t for values from (5) to (10);
		insert into t values (1, 1), (2, 2), (7, 7)`, 1)
	_, err = b.apply("id,v", "n 1|6|1=5", `d 2|\N`, "u 9|9|1", "p 7|8", "i 8|8", "g 1|0", "p 20|1")
	require.NoError(t, err)
	require.Equal(t, []string{"(1,6)", "(7,8)", "(8,8)", "(9,9)"}, b.table())
	require.Len(t, b.letters(), 1, "no partition for 20")
}

func TestMergeNeedsPrivileges(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, intTable, 1)
	execute(t, b.pool, `create function no() returns trigger language plpgsql as $$ begin raise exception 'no' using errcode = '42501'; end $$;
		create trigger no before update on t for each row execute function no(); insert into t values (1, 1, 'a')`)
	_, err := b.apply("id,v,w", "p 1|2|b", "p 2|2|b")
	var f *FlushError
	require.ErrorAs(t, err, &f)
	require.True(t, f.Halts())
	require.Equal(t, []string{"(1,1,a)"}, b.table())
}

// Rows are locked in the order of their keys whatever the order in the log.
func TestMergeLocksInKeyOrder(t *testing.T) {
	t.Parallel()
	for name, words := range map[string][]string{
		"updates": {"n 9|1|x|1=1", "n 5|1|x|1=1", "n 1|1|x|1=1"},
		"puts":    {"p 9|1|x", "p 5|1|x", "p 1|1|x"},
		"deletes": {`d 9|\N|\N`, `d 5|\N|\N`, `d 1|\N|\N`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setupFlush(t, intTable+"; insert into t values (9, 9, 'w'), (5, 5, 'w'), (1, 1, 'w')", 1)
			tx, err := b.pool.Begin(t.Context())
			require.NoError(t, err)
			defer func() { _ = tx.Rollback(context.Background()) }()
			_, err = tx.Exec(t.Context(), "update t set v = 0 where id = 5")
			require.NoError(t, err)
			done := make(chan error, 1)
			go func() {
				_, err := b.apply("id,v,w", words...)
				done <- err
			}()
			require.Eventually(t, func() bool {
				return b.count(`select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`) == 1
			}, 5*time.Second, 5*time.Millisecond)
			require.Equal(t, []string{"9"}, b.rows("select id::text from t order by id for update skip locked"))
			require.NoError(t, tx.Rollback(t.Context()))
			require.NoError(t, <-done)
		})
	}
}

// A counter can go up while a transaction of others refers to its row.
func TestMergeDoesNotWaitForChildren(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, intTable+"; insert into t values (1, 1, 'a'); create table child (parent int references t)", 1)
	tx, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	defer func() { _ = tx.Rollback(context.Background()) }()
	_, err = tx.Exec(t.Context(), "insert into child values (1)")
	require.NoError(t, err)
	_, err = b.apply("id,v,w", "n 1|2|a|1=1")
	require.NoError(t, err)
	require.Equal(t, []string{"(1,2,a)"}, b.table())
}

// However few rows a batch has, a large table is not read from end to end; and
// the plan knows how many there are.
func TestMergeUsesTheIndex(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, `create table t (a int, b text, v int, primary key (a, b));
		insert into t select i, 'key', i from generate_series(1, 50000) i; analyze t`, 1)
	known := loadTables(t, b.pool)["t"]
	for _, n := range []int{1, 300} {
		var words []string
		for i := range n {
			words = append(words, fmt.Sprintf("n %d|key|0|2=1", i*100))
		}
		waves, err := flusher.Coalesce(known, []flusher.Part{{Frames: []*table.Frame{operations(table.ID{}, "a,b,v", words...)}}})
		require.NoError(t, err)
		update, _ := updateStatement(known, waves[0])
		for _, s := range []statement{holdStatement(known, waves[0], "update"), update, deleteStatement(known, waves[0])} {
			conn, err := b.pool.Acquire(t.Context())
			require.NoError(t, err)
			plan := conn.Conn().PgConn().ExecParams(t.Context(), "explain "+s.sql, s.params, nil, []int16{binaryFormat}, nil).Read()
			conn.Release()
			require.NoError(t, plan.Err)
			var text strings.Builder
			for _, row := range plan.Rows {
				text.Write(append(row[0], '\n'))
			}
			require.Contains(t, text.String(), "Index Scan using t_pkey on t", "%d: %s", n, s.sql)
			require.Contains(t, text.String(), fmt.Sprintf("rows=%d ", n), s.sql)
		}
	}
}
