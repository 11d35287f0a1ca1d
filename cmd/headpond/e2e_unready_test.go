package main_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// TestServeUnready: a database without the schema, and one that takes no writes, are
// called so and not one that does not answer; when they are mended all goes on.
func TestServeUnready(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	s := &servers{program: program, redis: uptest.Redis(t), postgres: uptest.Postgres(t), state: t.TempDir()}
	execute(t, s.postgres.URL(), "create table notes (id int primary key)")
	h := &headpond{process: start(t, program, s.env(), "serve", "--listen", "127.0.0.1:0"), database: s.postgres.URL(), redis: s.redis.URL()}
	h.api, _ = h.logged("serving")["url"].(string)
	says := func(words string, paths ...string) {
		t.Helper()
		for _, path := range paths {
			await(t, words+" at "+path, func() bool { return strings.Contains(string(h.get(t, path).body), words) })
		}
	}
	const missing = "The schema headpond is missing or older than this program: run headpond migrate up."
	says(missing, "/v1/notes/1", "/v1", "/readyz?verbose", "/admin/v1/status")
	require.Equal(t, http.StatusServiceUnavailable, h.get(t, "/v1/notes/1").code)
	require.Contains(t, h.log.String(), missing)
	require.NotContains(t, h.log.String(), "not answered")
	migrated := command(t, program, s.env(), "migrate", "up")
	require.Zero(t, migrated.code, migrated.err)
	h.serves(t, "notes")

	execute(t, s.postgres.URL(), "alter system set default_transaction_read_only = on")
	execute(t, s.postgres.URL(), "select pg_reload_conf()")
	require.NoError(t, s.postgres.Kill())
	require.NoError(t, s.postgres.Restart(t.Context()))
	a, err := h.post("notes", typeJSON, `{"id":1}`)
	require.NoError(t, err)
	require.Equal(t, http.StatusAccepted, a.code, "%s", a.body)
	says("This PostgreSQL takes no writes: it is a standby, or default_transaction_read_only is on. Writes are accepted", "/readyz?verbose", "/admin/v1/status")
}
