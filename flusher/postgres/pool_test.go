package postgres

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

func TestMain(m *testing.M) { uptest.Main(m) }

// open makes a database of the test's own, runs sql in it, and gives a pool.
func open(t testing.TB, sql string) *pgxpool.Pool {
	t.Helper()
	return openURL(t, uptest.Database(t), sql)
}

func openURL(t testing.TB, url, sql string) *pgxpool.Pool {
	t.Helper()
	pool, err := NewPool(t.Context(), url, PoolOptions{MaxConns: 3})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	if sql != "" {
		execute(t, pool, sql)
	}
	return pool
}

// execute runs any number of statements.
func execute(t testing.TB, pool *pgxpool.Pool, sql string) {
	t.Helper()
	conn, err := pool.Acquire(t.Context())
	require.NoError(t, err)
	defer conn.Release()
	_, err = conn.Conn().PgConn().Exec(t.Context(), sql).ReadAll()
	require.NoError(t, err)
}

// value is the one value of a query, as text.
func value(t *testing.T, pool *pgxpool.Pool, sql string) string {
	t.Helper()
	answers, err := NewEdge(pool).ask(t.Context(), []question{{sql: sql}})
	require.NoError(t, err)
	require.Nil(t, answers[0].err)
	return string(answers[0].rows[0][0])
}

// loadTables loads all tables of the database.
func loadTables(t testing.TB, pool *pgxpool.Pool, named ...string) map[string]*table.Table {
	t.Helper()
	tables, err := LoadCatalog(t.Context(), pool, Selection{Expose: []string{"*.*"}, Tables: named})
	require.NoError(t, err)
	return tables
}

func TestPoolFixesTheSession(t *testing.T) {
	t.Parallel()
	url := uptest.Database(t)
	pool := openURL(t, url, "")
	execute(t, pool, `
		do $$ begin
			execute format('alter database %I set timezone = ''Asia/Tokyo''', current_database());
			execute format('alter database %I set datestyle = ''German''', current_database());
			execute format('alter database %I set synchronous_commit = off', current_database());
			execute format('alter database %I set search_path = shop, public', current_database());
		end $$`)

	for _, u := range []string{url, url + "&timezone=Asia%2FTokyo&INTERVALSTYLE=iso_8601"} {
		fresh := openURL(t, u, "")
		for name, want := range session {
			require.Equal(t, want, value(t, fresh, "show "+name), name)
		}
		require.Equal(t, "on", value(t, fresh, "show synchronous_commit"))
		require.Equal(t, "headpond", value(t, fresh, "show application_name"))
		require.Equal(t, "shop, public", value(t, fresh, "show search_path"), "the user's own triggers need it")
	}
}

func TestPoolIsLazy(t *testing.T) {
	t.Parallel()
	pool, err := NewPool(t.Context(), "postgres://nobody@127.0.0.1:1/none", PoolOptions{})
	require.NoError(t, err)
	defer pool.Close()
	_, err = NewEdge(pool).Reserve(t.Context(), "s", 1)
	require.ErrorIs(t, err, ErrUnavailable)
}

func TestPoolNeverShowsThePassword(t *testing.T) {
	t.Parallel()
	_, err := NewPool(t.Context(), "postgres://me:s3cret@host:notaport/db", PoolOptions{})
	require.Error(t, err)
	require.NotContains(t, err.Error(), "s3cret")
}

func TestPoolRefusesAServerThatCannotWrite(t *testing.T) {
	t.Parallel()
	url := uptest.Database(t)
	readOnly := openURL(t, url+"&default_transaction_read_only=on", "")
	require.ErrorContains(t, readOnly.Ping(t.Context()), "read only")
}

// An ALTER TABLE on a live connection must neither break a query nor leave it
// with the type that the column had before. pgx's default mode fails here.
func TestPoolSurvivesAlterTable(t *testing.T) {
	t.Parallel()
	pool, err := NewPool(t.Context(), uptest.Database(t), PoolOptions{MaxConns: 1})
	require.NoError(t, err)
	defer pool.Close()
	execute(t, pool, `create table a (v int8)`)
	write := func() (v any) {
		_, err := pool.Exec(t.Context(), `insert into a values ($1)`, 7)
		require.NoError(t, err)
		require.NoError(t, pool.QueryRow(t.Context(), `select * from a where v < 10 order by v limit 1`).Scan(&v))
		return v
	}
	require.Equal(t, int64(7), write())
	execute(t, pool, `alter table a alter v type float8`)
	require.InDelta(t, 7.0, write(), 0)
	execute(t, pool, `alter table a add w text`)
	var v, w any
	require.NoError(t, pool.QueryRow(t.Context(), `select * from a where v < 10 order by v limit 1`).Scan(&v, &w))
}

// The reason why the pool leaves search_path alone.
func TestTriggersFindTheirTables(t *testing.T) {
	t.Parallel()
	pool := open(t, `
		create table audit (what text);
		create table orders (id int primary key);
		create function note() returns trigger language plpgsql as $$ begin insert into audit values ('x'); return new; end $$;
		create trigger note before insert on orders for each row execute function note();`)
	execute(t, pool, `insert into public.orders values (1)`)
	require.Equal(t, "1", value(t, pool, `select count(*) from audit`))
}

func TestEdgeIsCancelled(t *testing.T) {
	t.Parallel()
	pool := open(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := NewEdge(pool).Reserve(ctx, "s", 1)
	require.ErrorIs(t, err, context.Canceled)
	require.NotErrorIs(t, err, ErrUnavailable)
}

// cleanupContext: in a cleanup, the test's own has ended.
func cleanupContext() context.Context { return context.Background() }

// cells of a key.
func cells(texts ...string) []table.Cell {
	out := make([]table.Cell, len(texts))
	for i, text := range texts {
		out[i] = table.Cell{State: table.Set, Text: []byte(text)}
	}
	return out
}
