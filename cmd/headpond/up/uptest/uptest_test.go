package uptest_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

func TestMain(m *testing.M) { uptest.Main(m) }

func TestSharedServersAreShared(t *testing.T) {
	t.Parallel()
	require.Same(t, uptest.SharedRedis(t), uptest.SharedRedis(t))
	require.Same(t, uptest.SharedPostgres(t), uptest.SharedPostgres(t))
}

func TestDatabasesAreApart(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"one", "Ünïque / näme with a length that no identifier of PostgreSQL could ever hold"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, err := pgx.Connect(t.Context(), uptest.Database(t))
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, conn.Close(context.WithoutCancel(t.Context()))) })
			_, err = conn.Exec(t.Context(), "CREATE TABLE same_name (n int)")
			require.NoError(t, err)
		})
	}
}
