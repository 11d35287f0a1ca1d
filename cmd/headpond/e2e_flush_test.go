package main_test

import (
	"encoding/json"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFlushCommand: 1 and what is left while no flusher runs, 0 when all is
// committed.
func TestFlushCommand(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	s := startServers(t, program)
	execute(t, s.postgres.URL(), "create table notes (id int primary key); create table other (id int primary key)")
	h := s.serve(t, "--role", "api")
	h.serves(t, "notes", "other")
	a, err := h.post("notes", typeJSON, `[{"id":1},{"id":2}]`)
	require.NoError(t, err)
	require.Equal(t, http.StatusAccepted, a.code, "%s", a.body)
	env := cleanEnvironment("HEADPOND_API=" + h.api)
	type flushed struct {
		Flushed bool
		Tables  []struct {
			Table string
			Rows  int64
		}
		Pending []string
	}
	flush := func(code int, args ...string) (f flushed, said string) {
		t.Helper()
		got := command(t, program, env, append([]string{"flush", "--output", "json"}, args...)...)
		require.Equal(t, code, got.code, "%s%s", got.out, got.err)
		if got.out != "" {
			require.NoError(t, json.Unmarshal([]byte(got.out), &f), got.out)
		}
		return f, got.err
	}
	for _, args := range [][]string{{"--wait", "100ms"}, {"--wait", "100ms", "other", "notes"}} {
		f, said := flush(1, args...)
		require.Equal(t, flushed{Tables: f.Tables, Pending: []string{"Rows of notes that are left: 2."}}, f)
		require.Contains(t, said, "Rows of notes that are left: 2.")
	}
	f, _ := flush(0, "--wait", "0s", "other")
	require.True(t, f.Flushed)
	_, said := flush(1, "other", "nosuch")
	require.Contains(t, said, "flush table=nosuch: There is no table of this name")

	flusher(t, program, h.database, h.redis)
	f, _ = flush(0, "--wait", "20s")
	require.True(t, f.Flushed)
	require.Empty(t, f.Pending)
	require.Equal(t, 2, value[int](t, h.database, "select count(*)::int from notes"))
	h.kill()
	_, said = flush(1)
	require.Contains(t, said, "cannot be reached")
}
