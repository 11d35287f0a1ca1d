package main_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTail follows the log: what is there, and what comes, each once, also when
// Redis was away; what a row holds does not reach a terminal as it is.
func TestTail(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	s := startServers(t, program)
	execute(t, s.postgres.URL(), "create table notes (id int primary key, v text); create table other (id int primary key)")
	h := s.serve(t, "--role", "api")
	h.serves(t, "notes")
	send := func(path, body string) {
		a, err := request(http.MethodPost, h.api+path, typeJSON, body)
		require.NoError(t, err)
		require.Equal(t, http.StatusAccepted, a.code, "%s", a.body)
	}
	send("/v1/notes", `{"id":1,"v":"\u001b[31m first"}`)
	send("/v1/other", `{"id":1}`)
	env := cleanEnvironment("REDIS_URL=" + s.redis.URL())
	all := start(t, program, env, "tail", "--from", "oldest", "--output", "json", "--rows", "notes")
	text := start(t, program, env, "tail", "--from", "oldest", "--rows")
	await(t, "what is there", func() bool {
		return strings.Count(all.out.String(), "\n") == 1 && strings.Count(text.out.String(), "\n") == 2
	})
	send("/v1/notes", `{"id":2,"v":null}`)
	await(t, "what comes", func() bool { return strings.Count(all.out.String(), "\n") == 2 })
	require.NoError(t, s.redis.Kill())
	await(t, "a word about Redis", func() bool { return strings.Contains(all.log.String(), "Redis cannot be read") })
	require.NoError(t, s.redis.Restart(t.Context()))
	send("/v1/notes", `{"id":3,"v":"third"}`)
	await(t, "what came later", func() bool {
		return strings.Count(all.out.String(), "\n") == 3 && strings.Count(text.out.String(), "\n") == 4
	})

	var ids []string
	for line := range strings.Lines(all.out.String()) {
		var l struct {
			Receipt, Operation string
			Row                map[string]*string
		}
		require.NoError(t, json.Unmarshal([]byte(line), &l))
		require.Equal(t, "insert", l.Operation)
		require.Contains(t, l.Receipt, "notes.")
		ids = append(ids, *l.Row["id"])
	}
	require.Equal(t, []string{"1", "2", "3"}, ids)
	require.NotContains(t, text.out.String(), "\x1b")
	require.Equal(t, 2, command(t, program, env, "tail", "--from", "yesterday").code)
	for _, from := range []string{"now", "oldest"} {
		got := command(t, program, env, "tail", "--from", from, "notes", "nosuch")
		require.Equal(t, 2, got.code)
		require.Contains(t, got.err, `there is no table "nosuch"`)
	}
	require.Equal(t, 2, command(t, program, cleanEnvironment(), "tail").code)
}
