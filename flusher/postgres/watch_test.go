package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
	"github.com/headpond/headpond/migrations"
)

// fakeCache remembers what left. Keys in dirty are kept while they are above
// the watermark.
type fakeCache struct {
	mu      sync.Mutex
	left    []string // "table/key", "table/*" for a whole table
	dirty   map[string]uint64
	touched map[string]int
	asked   int
	fail    error
	hook    func()
}

func (c *fakeCache) Outdate(_ context.Context, keys map[buffer.Place][]string, upto map[buffer.Place]uint64) (kept []buffer.Kept, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for p, some := range keys {
		c.asked += len(some)
		for _, key := range some {
			if seq := c.dirty[p.Table+"/"+key]; seq > upto[p] {
				kept = append(kept, buffer.Kept{Place: p, Key: key, ID: table.ID{Epoch: 1, Seq: seq}})
				continue
			}
			c.left = append(c.left, p.Table+"/"+key)
		}
	}
	if len(keys) > 0 && c.hook != nil {
		c.hook()
	}
	return kept, c.fail
}

func (c *fakeCache) OutdateTable(_ context.Context, name string, _ int, _ map[buffer.Place]uint64) ([]buffer.Kept, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.left = append(c.left, name+"/*")
	return nil, c.fail
}

func (c *fakeCache) TouchLists(_ context.Context, name string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.touched[name]++
	return nil
}

// watchBundle is a watched database.
type watchBundle struct {
	t       testing.TB
	url     string
	pool    *pgxpool.Pool
	watches *Watches
	cache   *fakeCache
	watcher *Watcher
	counts  ExternalCounts
	wins    bool
}

func setupWatch(t testing.TB, ddl string, tables ...string) *watchBundle {
	t.Helper()
	b := &watchBundle{t: t, url: uptest.Migrated(t, migrations.Up), cache: &fakeCache{dirty: map[string]uint64{}, touched: map[string]int{}}}
	b.pool = openURL(t, b.url, ddl)
	b.watches = NewWatches(b.pool)
	b.watcher = NewWatcher(b.pool, b.cache, b.tables, &b.counts, slog.New(slog.DiscardHandler))
	for _, name := range tables {
		require.NoError(t, b.watches.Install(t.Context(), b.table(name)))
	}
	b.take()
	return b
}

func (b *watchBundle) table(name string) *table.Table {
	b.t.Helper()
	t := loadTables(b.t, b.pool, name)[name]
	require.NotNil(b.t, t, name)
	return t
}

func (b *watchBundle) tables() map[string]Watched {
	out := make(map[string]Watched)
	for name, t := range loadTables(b.t, b.pool) {
		if t.HasKey() {
			out[name] = Watched{Table: t, Partitions: 4, DatabaseWins: b.wins}
		}
	}
	return out
}

// take lets the watcher do what there is to do, and gives what left the cache.
func (b *watchBundle) take() []string {
	b.t.Helper()
	for {
		more, err := b.watcher.Once(b.t.Context())
		require.NoError(b.t, err)
		if !more {
			break
		}
	}
	b.cache.mu.Lock()
	defer b.cache.mu.Unlock()
	left := b.cache.left
	b.cache.left = nil
	slices.Sort(left)
	return left
}

func (b *watchBundle) exec(sql string) {
	b.t.Helper()
	execute(b.t, b.pool, sql)
}

// as another program, with settings of its own, in one session.
func (b *watchBundle) others(statements ...string) {
	b.t.Helper()
	conn, err := pgx.Connect(b.t.Context(), b.url)
	require.NoError(b.t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	for _, sql := range statements {
		_, err := conn.PgConn().Exec(b.t.Context(), sql).ReadAll()
		require.NoError(b.t, err, sql)
	}
}

func (b *watchBundle) count(sql string) (n int) {
	b.t.Helper()
	require.NoError(b.t, b.pool.QueryRow(b.t.Context(), sql).Scan(&n))
	return n
}

const (
	changesLeft    = "select count(*) from headpond.changes"
	watchFunctions = "select count(*) from pg_proc where proname like 'watch\\_%' and prorettype = 'trigger'::regtype"
)

// TestWatchedStatements: every way of changing a row makes its key leave.
func TestWatchedStatements(t *testing.T) {
	t.Parallel()
	b := setupWatch(t, `create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 10) i;
		create table child (id int primary key, parent int references t on delete cascade on update cascade); insert into child values (100, 9)`, "t", "child")
	for _, x := range []struct {
		sql  string
		want string
	}{
		{"update t set v = 0 where id in (1, 2)", "t/1 t/2"},
		{"update t set id = 20 where id = 3", "t/20 t/3"},
		{"delete from t where id = 1", "t/1"},
		{"insert into t values (30, 1), (31, 1)", "t/30 t/31"},
		{"insert into t values (30, 2), (32, 2) on conflict (id) do update set v = 9", "t/30 t/32"},
		{"with x as (delete from t where id = 32 returning id) insert into t select id + 1, 0 from x", "t/32 t/33"},
		{"merge into t using (values (30), (40)) x (i) on id = i when matched then update set v = 1 when not matched then insert values (i, 0)", "t/30 t/40"},
		{"update t set v = 1 where false", ""},
		{"insert into t values (30, 2) on conflict do nothing", ""},
		{"delete from t where id = 9", "child/100 t/9"},
		{"begin; update t set v = 5 where id = 4; rollback", ""},
		{"begin; update t set v = 5 where id = 4; update t set v = 6 where id = 4; commit", "t/4"},
		{"set session_replication_role = replica; update t set v = 7 where id = 4", "t/4"},
		{"truncate t cascade", "child/* t/*"},
	} {
		b.others(x.sql)
		require.Equal(t, x.want, strings.Join(b.take(), " "), x.sql)
		require.Zero(t, b.count(changesLeft))
	}
	conn, err := pgx.Connect(t.Context(), b.url)
	require.NoError(t, err)
	defer func() { _ = conn.Close(context.Background()) }()
	_, err = conn.PgConn().CopyFrom(t.Context(), strings.NewReader("50\t1\n51\t1\n"), "copy t from stdin")
	require.NoError(t, err)
	require.Equal(t, []string{"t/50", "t/51"}, b.take())
	require.Positive(t, b.cache.touched["t"])
}

// TestWatchedKeys: keys are the text that Headpond knows the row by, whatever the
// session that changed it has set.
func TestWatchedKeys(t *testing.T) {
	t.Parallel()
	b := setupWatch(t, `
		create type mood as enum ('sad', 'so "happy"');
		create domain code as varchar(20);
		create schema "Odd";
		create table "Odd"."My ""table" ("Sel ect" int, "k1%s$body$'" text, entry text, primary key (entry, "Sel ect", "k1%s$body$'"));
		create table many (a timestamptz, b bytea, c numeric(10,3), d bool, e char(5), f uuid, g date, h mood, i code, k inet, l text[],
			primary key (a, b, c, d, e, f, g, h, i, k, l))`, "many", `Odd.My "table`)
	b.others("set timezone = 'America/New_York'", "set datestyle = 'German'", "set bytea_output = 'escape'", "set extra_float_digits = -5", "set intervalstyle = 'iso_8601'",
		"set search_path = pg_temp", "create temp table changes (a int)", "create temp table headpond_new (a int)",
		`insert into public.many values ('2024-02-29 12:34:56.789 Asia/Tokyo', '\x00ff', 1.5, true, 'a,b', '00000000-0000-0000-0000-00000000000a', '2024-03-01',
			'so "happy"', 'x%y', '10.0.0.1', array['a', 'b,c'])`,
		`insert into "Odd"."My ""table" values (1, 'it''s', 'x'), (2, '', '')`)
	want := []string{`Odd.My "table/,2,`, `Odd.My "table/x,1,it's`, ""}
	read := b.table("many")
	row := readRow(t, b.pool, read)
	want[2] = "many/" + string(read.AppendKey(nil, row))
	require.Equal(t, want, b.take())
	require.Contains(t, want[2], "2024-02-29 03:34:56.789+00,\\x00ff,1.5,t,a%2Cb,")
}

// readRow reads the only row as the edge does.
func readRow(t *testing.T, pool *pgxpool.Pool, tbl *table.Table) table.Row {
	t.Helper()
	var row table.Row
	require.NoError(t, NewEdge(pool).Keys(t.Context(), tbl, "", 0, func(r table.Row) error { row = append(row, r...); return nil }))
	return row
}

// TestWatchedInBulk: many keys share entries, and too many are the whole table.
func TestWatchedInBulk(t *testing.T) {
	t.Parallel()
	b := setupWatch(t, "create table t (id int primary key, v int); insert into t select i, i from generate_series(1, 100001) i", "t")
	b.exec("update t set v = 0 where id <= 10000")
	require.Equal(t, 10, b.count(changesLeft))
	require.Len(t, b.take(), 10000)
	b.exec("update t set id = -id where id <= 700")
	require.Len(t, b.take(), 1400)
	b.exec("update t set v = 1")
	require.Equal(t, []string{"t/*"}, b.take())
	require.Equal(t, int64(10000+1400+1), b.counts.Changes()["t"])
}

// TestOwnChangesAreNotNoted: flushes and direct writes note nothing; what their
// statements set off in other rows is noted.
func TestOwnChangesAreNotNoted(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, intTable, 1)
	w := NewWatches(b.pool)
	require.NoError(t, w.Install(t.Context(), b.lookup("t")))
	execute(t, b.pool, "delete from headpond.changes")
	_, err := b.flush(give("id,v,w", "1,1,a", "2,2,b"), 0)
	require.NoError(t, err)
	tbl := b.lookup("t")
	require.NoError(t, NewDirect(b.pool).Transact(t.Context(), []*table.Table{tbl}, func(ctx context.Context, tx *Tx) error {
		f := &table.Frame{Columns: tbl.Header()}
		f.Add(table.OpInsert, time.Now().UnixMicro(), []byte("3\t3\tc\n"))
		_, err := tx.Write(ctx, tbl, f)
		return err
	}))
	require.Equal(t, 3, b.count("select count(*) from t"))
	require.Zero(t, b.count(changesLeft))

	execute(t, b.pool, `create table log (id int primary key, n int); insert into log values (1, 0)`)
	require.NoError(t, w.Install(t.Context(), loadTables(t, b.pool)["log"]))
	execute(t, b.pool, `delete from headpond.changes;
		create function count_t() returns trigger language plpgsql as $$ begin update log set n = n + 1; update t set w = 'x' where id = 1; return null; end $$;
		create trigger count_t after insert on t for each statement execute function count_t()`)
	_, err = b.flush(give("id,v,w", "4,1,a"), 0)
	require.NoError(t, err)
	require.Equal(t, 2, b.count("select count(*) from headpond.changes where own and (table_name, keys) in (('log', '{{1}}'), ('t', '{{1}}'))"))
	require.Equal(t, 2, b.count(changesLeft))
}

// TestWatchNeverBreaksWrites: whatever becomes of the table or of Headpond's
// schema, statements of others go on, and no change is missed.
func TestWatchNeverBreaksWrites(t *testing.T) {
	t.Parallel()
	b := setupWatch(t, "create table t (id int primary key, v int); insert into t values (1, 1)", "t")
	install := func() {
		t.Helper()
		problems, err := b.watches.Problems(t.Context(), []*table.Table{b.table("t")})
		require.NoError(t, err)
		require.Contains(t, problems["t"], "primary key is another one")
		require.NoError(t, b.watches.Install(t.Context(), b.table("t")))
		require.Equal(t, []string{"t/*"}, b.take())
		require.Equal(t, 1, b.count(watchFunctions))
	}
	b.exec(`alter table t rename id to "the id"`)
	b.others("update t set v = 2")
	require.Equal(t, []string{"t/*"}, b.take())
	install()
	b.others("update t set v = 2")
	require.Equal(t, []string{"t/1"}, b.take())
	b.exec("alter table t add other text not null default 'x'; alter table t drop constraint t_pkey")
	b.others("update t set v = 3")
	require.Equal(t, 1, b.count("select count(*) from headpond.changes where keys is null"))
	b.exec("alter table t add primary key (other, v)")
	require.Equal(t, []string{"t/*"}, b.take())
	install()
	b.others("update t set v = 4")
	require.Equal(t, []string{"t/x,3", "t/x,4"}, b.take())

	b.others("update t set v = 5") // noted under this key, and read under another
	b.exec("alter table t drop constraint t_pkey; alter table t add primary key (v, other)")
	require.Equal(t, []string{"t/*"}, b.take())
	install()
	b.exec("alter table t rename to u")
	b.others("update u set v = 6")
	require.Equal(t, []string{"u/5,x", "u/6,x"}, b.take())

	b.exec("create role stranger; grant select, update on u to stranger")
	dropRole(t, b.url, "stranger")
	b.others("set role stranger; update u set v = 7")
	require.Equal(t, []string{"u/6,x", "u/7,x"}, b.take())

	b.exec("drop table headpond.changes")
	b.others("update u set v = 8")
	b.exec("drop schema headpond cascade")
	b.others("update u set v = 9", "truncate u")
	require.Zero(t, b.count("select count(*) from pg_trigger where not tgisinternal"))
}

// variableNames of columns that a trigger function, or PL/pgSQL itself, uses for
// something else, a key's worth of them each.
var variableNames = [][]string{
	{"path", "within", "n", "most", "k1", "entry", "s", "x", "r", "i", "key", "keys", "columns", "own", "relation", "table_name", "name", "indkey",
		"indexrelid", "indrelid", "indisprimary", "headpond_new", "headpond_old", "new", "old", "found", "sqlstate", "sqlerrm"},
	{"tg_op", "tg_relid", "tg_name", "tg_when", "tg_level", "tg_argv", "tg_nargs", "tg_table_name", "tg_table_schema", "tg_relname", "tg_tag",
		"Path", "PATH", "select", "loop", "then", "end", "into", "a.b", `q"u`, "it's", "$body$", "%s", "100%", "from headpond_new limit most + 1)", "\n declare\n"},
}

func quoted(name string) string { return pgx.Identifier{name}.Sanitize() }

// variableTables t0 and t1 have keys of those names, and beside has them all beside its key.
func variableTables() (ddl string) {
	for i, names := range variableNames {
		ddl += fmt.Sprintf("create table t%d (", i)
		var key []string
		for _, name := range names {
			ddl += quoted(name) + " text default 'a', "
			key = append(key, quoted(name))
		}
		ddl += fmt.Sprintf("v int, primary key (%s));\n", strings.Join(key, ", "))
	}
	ddl += "create table beside (id int primary key, v int"
	for _, name := range slices.Concat(variableNames...) {
		ddl += ", " + quoted(name) + " int"
	}
	return ddl + ");\n"
}

// writeVariables changes those tables in every way, and each change must be noted.
func (b *watchBundle) writeVariables() {
	b.t.Helper()
	write := func(sql string, want ...string) {
		b.t.Helper()
		b.exec(sql)
		require.Equal(b.t, want, b.take(), sql)
	}
	for i, names := range variableNames {
		table, values := fmt.Sprintf("t%d", i), slices.Repeat([]string{"a"}, len(names))
		path := func() string { return table + "/" + strings.Join(values, ",") }
		write("insert into "+table+" default values", path())
		write("update "+table+" set v = 1", path())
		for j, name := range names {
			was := path()
			values[j] = "b"
			write(fmt.Sprintf("update %s set %s = 'b'", table, quoted(name)), was, path())
		}
		write("delete from "+table, path())
		write("truncate "+table, table+"/*")
	}
	write("insert into beside (id) values (1)", "beside/1")
	write("update beside set v = 1, id = 2", "beside/1", "beside/2")
	write("delete from beside", "beside/2")
	write("truncate beside", "beside/*")
}

// TestWatchColumnsNamedLikeVariables: a column may have any name. Nobody could
// write to a page_views with a key named path while it was watched.
func TestWatchColumnsNamedLikeVariables(t *testing.T) {
	t.Parallel()
	setupWatch(t, variableTables(), "t0", "t1", "beside").writeVariables()
}

// TestWatchMigratesInstalledFunctions: triggers that an older version installed are
// mended where they are, those too whose table has another key by now. Before the
// migration no more of them are made.
func TestWatchMigratesInstalledFunctions(t *testing.T) {
	t.Parallel()
	b := setupWatch(t, variableTables()+"create table stale (id int primary key, path text not null, most int)")
	sql, err := os.ReadFile("../../migrations/sql/00004_watch.sql")
	require.NoError(t, err)
	_, older, _ := strings.Cut(string(sql), "create function headpond.watch_function")
	older, _, _ = strings.Cut(older, "-- +goose")
	b.exec("delete from headpond.migrations where version_id >= 8; drop table headpond.replays; create or replace function headpond.watch_function" + older)
	require.ErrorContains(t, b.watches.Install(t.Context(), b.table("t0")), "headpond migrate up")
	for _, name := range []string{"t0", "t1", "beside", "stale"} {
		var function string
		require.NoError(t, b.pool.QueryRow(t.Context(), "select headpond.watch_function($1::text::regclass)", name).Scan(&function))
		for _, tr := range watchTriggers {
			b.exec(fmt.Sprintf("create trigger %s after %s on %s %s for each statement execute function %s()", tr.name, tr.event, name, tr.referencing, function))
		}
	}
	for sql, want := range map[string]string{"insert into t0 default values": "ambiguous", "insert into stale values (1, 'x')": `"most" is ambiguous`} {
		_, err := b.pool.Exec(t.Context(), sql)
		require.ErrorContains(t, err, want)
	}
	b.exec("alter table stale drop constraint stale_pkey; alter table stale add primary key (path)")

	functions := b.count(watchFunctions)
	require.NoError(t, migrations.Up(t.Context(), b.url))
	require.Equal(t, functions, b.count(watchFunctions))
	problems, err := b.watches.Problems(t.Context(), []*table.Table{b.table("t0"), b.table("t1"), b.table("beside")})
	require.NoError(t, err)
	require.Empty(t, problems)
	b.exec("insert into stale values (1, 'x')")
	require.Equal(t, []string{"stale/*"}, b.take())
	b.writeVariables()
}

func dropRole(t *testing.T, url, role string) {
	cleaner := openURL(t, url, "")
	t.Cleanup(func() {
		_, _ = cleaner.Exec(cleanupContext(), "drop owned by "+role)
		_, _ = cleaner.Exec(cleanupContext(), "drop role "+role)
	})
}

// TestWatchInstall: once or twice, whole or in part, and nothing stays behind.
func TestWatchInstall(t *testing.T) {
	t.Parallel()
	b := setupWatch(t, "create table t (id int primary key, v int)", "t")
	problem := func() string {
		t.Helper()
		all, err := b.watches.Problems(t.Context(), []*table.Table{b.table("t")})
		require.NoError(t, err)
		return all["t"]
	}
	install := func() {
		t.Helper()
		require.NoError(t, b.watches.Install(t.Context(), b.table("t")))
		require.Empty(t, problem())
	}
	install()
	require.Empty(t, b.take(), "nothing was to be done")
	for _, x := range []struct{ sql, want string }{
		{"drop trigger headpond_watch_update on t", "headpond_watch_update is missing"},
		{"alter table t disable trigger headpond_watch_delete", "headpond_watch_delete is disabled"},
		{"alter table t disable trigger all", "is disabled"},
		{"alter table t enable replica trigger headpond_watch_insert", "is disabled"},
		{`do $$ begin execute (select replace(replace(pg_get_triggerdef(oid), 'CREATE', 'CREATE OR REPLACE'), 'EXECUTE', 'WHEN (false) EXECUTE') from pg_trigger where tgname = 'headpond_watch_truncate'); end $$`, "not as Headpond made it"},
		{"drop table t; create table t (id int primary key)", notInstalled},
	} {
		b.exec(x.sql)
		require.Contains(t, problem(), x.want)
		install()
		require.Equal(t, []string{"t/*"}, b.take(), "what was changed meanwhile leaves")
	}
	states, size, err := b.watches.Status(t.Context())
	require.NoError(t, err)
	require.Equal(t, []WatchState{{Table: "t"}}, states)
	require.Positive(t, size)

	require.NoError(t, b.watches.Remove(t.Context(), b.table("t")))
	require.NoError(t, b.watches.Remove(t.Context(), b.table("t")))
	require.Zero(t, b.count("select count(*) from pg_trigger where not tgisinternal"))
	require.Zero(t, b.count(watchFunctions))
	require.Equal(t, notInstalled, problem())
	states, _, err = b.watches.Status(t.Context())
	require.NoError(t, err)
	require.Empty(t, states)
}

func TestWatchRefuses(t *testing.T) {
	t.Parallel()
	b := setupWatch(t, `create table bare (a int); create view seen as select 1 as a;
		create table parted (id int primary key) partition by range (id); create table part partition of parted default;
		create table parent (id int primary key); create table heir (primary key (id)) inherits (parent);
		create table theirs (id int primary key); create table busy (id int primary key);
		create role watcher login; grant insert, select, trigger on theirs to watcher`)
	dropRole(t, b.url, "watcher")
	for name, want := range map[string]string{
		"bare": "no primary key", "seen": "view", "parted": "partitioned", "part": "is a partition", "heir": "inherits",
	} {
		require.ErrorContains(t, b.watches.Install(t.Context(), b.table(name)), want)
	}
	poor := NewWatches(openURL(t, strings.Replace(b.url, "postgres@", "watcher@", 1), ""))
	b.exec("grant usage on schema headpond to watcher")
	require.ErrorContains(t, poor.Install(t.Context(), b.table("theirs")), "belongs to the role postgres")
	require.Zero(t, b.count("select count(*) from pg_trigger where not tgisinternal"))

	old := NewWatches(openURL(t, uptest.Database(t), "create table t (id int primary key)"))
	require.ErrorContains(t, old.Install(t.Context(), loadTables(t, old.pool)["t"]), "headpond migrate up")
	_, _, err := old.Status(t.Context())
	require.ErrorContains(t, err, "headpond migrate up")
}

// TestChangesWaitForTheCache: while the cache is away, or when the process dies
// before it lets go, changes stay for the next.
func TestChangesWaitForTheCache(t *testing.T) {
	t.Parallel()
	b := setupWatch(t, "create table t (id int primary key, v int)", "t")
	b.others("insert into t values (1, 1)", "insert into t values (2, 1)")
	b.cache.fail = errors.New("away")
	_, err := b.watcher.Once(t.Context())
	require.ErrorContains(t, err, "away")
	require.Equal(t, 2, b.count(changesLeft))
	b.cache.fail = nil
	b.cache.left = nil

	// The process dies when Redis has done it and Postgres has not heard.
	b.cache.hook = func() {
		b.exec("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and state = 'idle in transaction'")
	}
	_, err = b.watcher.Once(t.Context())
	require.Error(t, err)
	require.Equal(t, 2, b.count(changesLeft))
	b.cache.hook, b.cache.left = nil, nil
	require.Equal(t, []string{"t/1", "t/2"}, b.take())
	require.Zero(t, b.count(changesLeft))
}

// TestWatchersShare: what one has in hand, another does not wait for.
func TestWatchersShare(t *testing.T) {
	t.Parallel()
	b := setupWatch(t, "create table t (id int primary key, v int)", "t")
	b.others("insert into t values (1, 1)")
	other := &fakeCache{touched: map[string]int{}}
	second := NewWatcher(b.pool, other, b.tables, &b.counts, slog.New(slog.DiscardHandler))
	b.cache.hook = func() {
		b.others("insert into t values (2, 1)")
		_, err := second.Once(t.Context())
		require.NoError(t, err)
	}
	require.Equal(t, []string{"t/1"}, b.take())
	require.Equal(t, []string{"t/2"}, other.left)
	require.Zero(t, b.count(changesLeft))
}

// TestDirtyKeysLeaveLater: a key with an operation that waits leaves when that is
// committed: not before, or the log would put an older row in its place.
func TestDirtyKeysLeaveLater(t *testing.T) {
	t.Parallel()
	b := setupWatch(t, "create table t (id int primary key, v int)", "t")
	p := table.Partition([]byte("1"), 4)
	b.exec(fmt.Sprintf("insert into headpond.watermarks select 't', i, 1, 4 from generate_series(0, 3) i where i <> %d; insert into headpond.watermarks values ('t', %[1]d, 1, 4)", p))
	b.cache.dirty["t/1"] = 5
	b.others("insert into t values (1, 1)", "insert into t values (2, 1)")
	require.Equal(t, []string{"t/2"}, b.take())
	require.Zero(t, b.count(changesLeft))
	require.Equal(t, int64(1), b.counts.Conflicts("t", bufferWins))
	asked := b.cache.asked
	require.Empty(t, b.take())
	require.Equal(t, asked, b.cache.asked, "it is not asked for before")

	b.exec("update headpond.watermarks set seq = 5")
	b.cache.dirty["t/1"] = 6 // a later one waits by now: once more
	require.Empty(t, b.take())
	require.Equal(t, 1, b.count("select count(*) from headpond.conflicts where seq = 6 and loses = 0"))
	b.exec("update headpond.watermarks set seq = 6")
	require.Equal(t, []string{"t/1"}, b.take())
	require.Zero(t, b.count("select count(*) from headpond.conflicts"))
	require.Equal(t, int64(1), b.counts.Conflicts("t", bufferWins), "one conflict")

	b.wins = true
	b.cache.dirty["t/1"] = 9
	b.others("update t set v = 2 where id = 1")
	require.Empty(t, b.take())
	require.Equal(t, 1, b.count("select count(*) from headpond.conflicts where seq = 9 and loses = 9"))
}

// BenchmarkWatchedUpdate: 100,000 rows by one statement, and 1,000 statements in a
// transaction, with the triggers and without.
func BenchmarkWatchedUpdate(b *testing.B) {
	w := setupWatch(b, "create table t (id int primary key, v int, w text); insert into t select i, i, repeat('x', 100) from generate_series(1, 100000) i; create table small (id int primary key, v int); insert into small select i, i from generate_series(1, 1000) i")
	for _, watched := range []bool{false, true} {
		if watched {
			require.NoError(b, w.watches.Install(b.Context(), w.table("t")))
			require.NoError(b, w.watches.Install(b.Context(), w.table("small")))
		}
		for name, sql := range map[string]string{
			"update-100000":     "update t set v = v + 1",
			"own-update-100000": "begin; select set_config('headpond.own', 'on', true); update t set v = v + 1; commit",
			"statements-1000":   "do $$ begin for i in 1..1000 loop update small set v = v + 1 where id = i; end loop; end $$",
		} {
			b.Run(fmt.Sprintf("%s/watched=%t", name, watched), func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					w.exec("delete from headpond.changes")
					w.exec("vacuum full t")
					w.exec("vacuum full small")
					w.exec("vacuum full headpond.changes")
					b.StartTimer()
					w.exec(sql)
				}
			})
		}
	}
}
