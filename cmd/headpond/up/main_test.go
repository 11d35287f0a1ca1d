package up_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/cmd/headpond/up"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

const (
	soon = 30 * time.Second
	tick = 10 * time.Millisecond
)

// TestMain also plays `headpond up` for the tests that kill it: see helper.
func TestMain(m *testing.M) {
	if dir := os.Getenv("UP_TEST_HELPER"); dir != "" {
		helper(dir)
		return
	}
	uptest.Main(m)
}

// helper starts both servers, says so on one line, and waits to be killed.
func helper(dir string) {
	ctx := context.Background()
	r, err := up.StartRedis(ctx, up.RedisOptions{Dir: filepath.Join(dir, "redis")})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	p, err := up.StartPostgres(ctx, up.PostgresOptions{Dir: filepath.Join(dir, "postgres")})
	if err != nil {
		fmt.Println("error", err)
		return
	}
	fmt.Println("ready", r.PID(), p.PID(), r.Addr(), p.URL())
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	fmt.Println("stopped", r.Stop(), p.Stop())
}

func query[T any](t testing.TB, url, sql string, args ...any) T {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	var value T
	require.NoError(t, conn.QueryRow(t.Context(), sql, args...).Scan(&value), sql)
	return value
}

func exec(t testing.TB, url, sql string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(context.WithoutCancel(t.Context()))
	_, err = conn.Exec(t.Context(), sql)
	require.NoError(t, err, sql)
}
