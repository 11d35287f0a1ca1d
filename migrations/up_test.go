package migrations_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/headpond/headpond/cmd/headpond/up/uptest"
	"github.com/headpond/headpond/migrations"
)

func TestMain(m *testing.M) { uptest.Main(m) }

func TestUpFourAtOnce(t *testing.T) {
	t.Parallel()
	url := uptest.Database(t)
	var g errgroup.Group
	for range 4 {
		g.Go(func() error { return migrations.Up(t.Context(), url) })
	}
	require.NoError(t, g.Wait())
	require.NoError(t, migrations.Up(t.Context(), url))

	var n int
	conn := connect(t, url)
	require.NoError(t, conn.QueryRow(t.Context(), `select count(*) from headpond.migrations where version_id = 1`).Scan(&n))
	require.Equal(t, 1, n)
}

func TestUpLeavesPublicAlone(t *testing.T) {
	t.Parallel()
	url := uptest.Database(t)
	require.NoError(t, migrations.Up(t.Context(), url))
	require.Equal(t, []string{"headpond"}, texts(t, url, `
		select distinct nspname::text from pg_class c join pg_namespace n on n.oid = relnamespace
		where nspname !~ '^pg_' and nspname <> 'information_schema'`))
	require.Equal(t, []string{"changes", "conflicts", "dead_letters", "discarded", "epochs", "marks", "migrations", "moves", "processes", "replays", "watermarks"}, texts(t, url, `
		select relname::text from pg_class where relkind = 'r' and relnamespace = 'headpond'::regnamespace order by 1`))
}

func TestUpDescribesEveryColumn(t *testing.T) {
	t.Parallel()
	url := uptest.Database(t)
	require.NoError(t, migrations.Up(t.Context(), url))
	require.Empty(t, texts(t, url, `
		select attrelid::regclass || '.' || attname from pg_attribute
		where attrelid in ('headpond.watermarks'::regclass, 'headpond.dead_letters'::regclass, 'headpond.changes'::regclass, 'headpond.conflicts'::regclass,
			'headpond.epochs'::regclass, 'headpond.moves'::regclass, 'headpond.processes'::regclass, 'headpond.marks'::regclass,
			'headpond.discarded'::regclass, 'headpond.replays'::regclass)
			and attnum > 0 and col_description(attrelid, attnum) is null`))
}

func TestUpWithoutPrivileges(t *testing.T) {
	t.Parallel()
	url := uptest.Database(t)
	run(t, url, `create role serves_only login`)
	t.Cleanup(func() { run(t, url, `drop owned by serves_only; drop role serves_only`) })
	poor := strings.Replace(url, "postgres@", "serves_only@", 1)
	require.ErrorContains(t, migrations.Up(t.Context(), poor), "CREATE SCHEMA headpond")

	require.NoError(t, migrations.Up(t.Context(), url))
	run(t, url, `grant usage on schema headpond to serves_only; grant select on headpond.migrations to serves_only`)
	require.NoError(t, migrations.Up(t.Context(), poor))
}

func TestUpRefusesANewerDatabase(t *testing.T) {
	t.Parallel()
	url := uptest.Database(t)
	require.NoError(t, migrations.Up(t.Context(), url))
	run(t, url, `insert into headpond.migrations (version_id, is_applied) values (999, true)`)
	require.ErrorContains(t, migrations.Up(t.Context(), url), "newer program")
}

func TestWatermarkUpdatesAreHOT(t *testing.T) {
	t.Parallel()
	url := uptest.Postgres(t).URL() // alone: snapshots of other tests would keep old versions alive
	require.NoError(t, migrations.Up(t.Context(), url))
	run(t, url, `insert into headpond.watermarks select 'orders', p, 1, 0 from generate_series(0, 7) p`)
	conn := connect(t, url)
	for range 200 {
		_, err := conn.Exec(t.Context(), `update headpond.watermarks set seq = seq + 1, committed = committed + 1, updated_at = now()`)
		require.NoError(t, err)
	}
	_, err := conn.Exec(t.Context(), `select pg_stat_force_next_flush()`)
	require.NoError(t, err)
	var updates, hot, pages int64
	require.NoError(t, conn.QueryRow(t.Context(), `
		select n_tup_upd, n_tup_hot_upd, pg_relation_size(relid) / 8192
		from pg_stat_user_tables where relid = 'headpond.watermarks'::regclass`).Scan(&updates, &hot, &pages))
	require.Greater(t, hot, updates*9/10)
	require.LessOrEqual(t, pages, int64(2))
}

func TestStatus(t *testing.T) {
	t.Parallel()
	url := uptest.Database(t)
	before, err := migrations.Status(t.Context(), url)
	require.NoError(t, err)
	files, err := filepath.Glob("sql/*.sql")
	require.NoError(t, err)
	require.Len(t, before, len(files))
	require.False(t, before[0].Applied())
	require.Equal(t, "00001_headpond.sql", before[0].Name)
	require.Empty(t, texts(t, url, `select nspname::text from pg_namespace where nspname = 'headpond'`), "Status changes nothing")

	require.NoError(t, migrations.Up(t.Context(), url))
	after, err := migrations.Status(t.Context(), url)
	require.NoError(t, err)
	for _, m := range after {
		require.WithinDuration(t, time.Now(), m.AppliedAt, time.Minute)
	}
}

func TestExamplesOnlyInAnEmptyDatabase(t *testing.T) {
	t.Parallel()
	url := uptest.Database(t)
	require.NoError(t, migrations.Up(t.Context(), url))
	created, err := migrations.Examples(t.Context(), url)
	require.NoError(t, err)
	require.True(t, created)
	require.Equal(t, []string{"events", "orders", "page_views"}, texts(t, url, `
		select relname::text from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace order by 1`))
	created, err = migrations.Examples(t.Context(), url)
	require.NoError(t, err)
	require.False(t, created)

	theirs := uptest.Database(t)
	run(t, theirs, `create table mine (a int)`)
	created, err = migrations.Examples(t.Context(), theirs)
	require.NoError(t, err)
	require.False(t, created)
	require.Equal(t, []string{"mine"}, texts(t, theirs, `select relname::text from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace`))
}

func TestUpWithoutServer(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	require.ErrorContains(t, migrations.Up(ctx, "postgres:///x?host=/nowhere"), "connect for migrations")
}

func texts(t *testing.T, url, sql string) []string {
	t.Helper()
	rows, err := connect(t, url).Query(t.Context(), sql)
	require.NoError(t, err)
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	return out
}

// run does not use the test's context: it serves cleanups too.
func run(t *testing.T, url, sql string) {
	t.Helper()
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, url)
	require.NoError(t, err)
	_, err = conn.PgConn().Exec(ctx, sql).ReadAll()
	require.NoError(t, err)
	require.NoError(t, conn.Close(ctx))
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}
