package up_test

import (
	"context"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/cmd/headpond/up"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

func TestPostgresIsDurableAndLocal(t *testing.T) {
	t.Parallel()
	p, err := up.StartPostgres(t.Context(), up.PostgresOptions{Ephemeral: true})
	require.NoError(t, err)
	defer func() { require.NoError(t, p.Stop()) }()
	for name, want := range map[string]string{
		"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "wal_level": "replica",
		"max_connections": "100", "shared_buffers": "128MB", "max_wal_size": "2GB",
		"listen_addresses": "127.0.0.1", "client_connection_check_interval": "5s",
		"tcp_keepalives_idle": "30", "server_encoding": "UTF8", "lc_messages": "C",
	} {
		require.Equal(t, want, query[string](t, p.URL(), "SELECT current_setting($1)", name), name)
	}
	require.Equal(t, "headpond", query[string](t, p.URL(), "SELECT current_database()::text"))
	require.Contains(t, []string{"C.UTF-8", "C"}, query[string](t, p.URL(), "SELECT datcollate FROM pg_database WHERE datname = 'headpond'"))
	require.Equal(t, int64(0), query[int64](t, p.URL(), `SELECT count(*) FROM pg_hba_file_rules
		WHERE type <> 'local' AND address NOT IN ('127.0.0.1', '::1')`))
	require.True(t, query[bool](t, p.SocketURL(), "SELECT inet_client_addr() IS NULL"), "a Unix socket")
}

func TestPostgresKillAndRestart(t *testing.T) {
	t.Parallel()
	p := uptest.Postgres(t)
	where, pid := p.URL(), p.PID()
	exec(t, where, "CREATE TABLE kept AS SELECT 42 AS n")
	busy := keepBusy(t, where)

	require.NoError(t, p.Kill())
	require.Zero(t, p.PID())
	require.NoError(t, p.Restart(t.Context()))
	<-busy
	require.Equal(t, where, p.URL())
	require.NotEqual(t, pid, p.PID())
	require.Equal(t, 42, query[int](t, where, "SELECT n FROM kept"))
}

// keepBusy leaves a backend computing, which does not notice the death of the
// postmaster and keeps its shared memory in use.
func keepBusy(t *testing.T, url string) <-chan struct{} {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer conn.Close(context.Background())
		_, _ = conn.Exec(context.Background(), "SELECT count(*) FROM generate_series(1, 100000000000)")
	}()
	require.Eventually(t, func() bool {
		return query[int](t, url, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%generate_series%' AND pid <> pg_backend_pid()") == 1
	}, soon, tick)
	return ended
}

func TestPostgresStopAndRestart(t *testing.T) {
	t.Parallel()
	p := uptest.Postgres(t)
	exec(t, p.URL(), "CREATE TABLE kept AS SELECT 42 AS n")
	require.NoError(t, p.Stop())
	require.NoError(t, p.Restart(t.Context()))
	require.Equal(t, 42, query[int](t, p.URL(), "SELECT n FROM kept"))
}

func TestLongDirectoryGetsAShortSocket(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(uptest.Dir(t), strings.Repeat("long/", 20), "postgres")
	p, err := up.StartPostgres(t.Context(), up.PostgresOptions{Dir: dir, NoSync: true})
	require.NoError(t, err)
	require.NoError(t, p.Restart(t.Context()))
	require.Equal(t, 1, query[int](t, p.SocketURL(), "SELECT 1"))

	u, err := url.Parse(p.SocketURL())
	require.NoError(t, err)
	sockets := u.Query().Get("host")
	require.Less(t, len(sockets), 60)
	require.NoError(t, p.Stop())
	require.NoDirExists(t, sockets)

	require.NoError(t, p.Restart(t.Context()), "the socket directory is made again")
	require.NoError(t, p.Stop())
}
