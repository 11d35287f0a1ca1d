package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// TestUsage: a command that cannot be understood ends with 2, says why on
// standard error, and nothing on standard output.
func TestUsage(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	const url = "postgres://127.0.0.1:1/none"
	bad := writeConfig(t, strings.Join([]string{
		"tables_default: { strategy: guess, partitions: 5000 }",
		"tables:",
		"  orders: { cache: all, linger: -1s, on_conflict: shrug, ttl: 0s, list_ttl: -1s, negative_ttl: 9999h, watch: always, on_external_change: nobody }",
		"  events: { ttl: 1m, refresh_ahead: 1m }",
		"limits: { rows: 0 }",
		"flusher: { workers: 100, drain: -2s }",
	}, "\n"))
	for name, x := range map[string]struct {
		args string
		says []string
	}{
		"every error of a config at once": {"config check --config " + bad, []string{
			"tables_default.strategy", "tables_default.partitions", "tables.orders.cache", "tables.orders.linger",
			"tables.orders.on_conflict", "tables.orders.ttl", "tables.orders.list_ttl", "tables.orders.negative_ttl", "tables.orders.watch",
			"tables.orders.on_external_change", "tables.events.refresh_ahead", "`limits`", "flusher.workers", "flusher.drain",
		}},
		"a bad config to serve":        {"serve --database-url " + url + " --redis-url redis://127.0.0.1:1 --config " + bad, []string{"tables.orders.cache"}},
		"a bad config to up":           {"up --ephemeral --config " + bad, []string{"tables.orders.cache"}},
		"a config that is not there":   {"config check --config /none/headpond.yaml", []string{"/none/headpond.yaml"}},
		"a name that is no setting":    {"config check --config " + writeConfig(t, "tabels: {}"), []string{"tabels"}},
		"serve without URLs":           {"serve", []string{"DATABASE_URL", "REDIS_URL", "headpond up"}},
		"serve without a Redis":        {"serve --database-url " + url, []string{"REDIS_URL"}},
		"serve in a role that is none": {"serve --role leader", []string{"--role", "leader"}},
		"serve nowhere":                {"serve --listen here --database-url " + url + " --redis-url redis://127.0.0.1:1", []string{"--listen"}},
		"a URL that is none":           {"serve --database-url " + url + " --redis-url http://x", []string{"redis"}},
		"doctor without a Redis":       {"doctor --database-url " + url, []string{"REDIS_URL"}},
		"verify without a database":    {"verify --redis-url redis://127.0.0.1:1", []string{"DATABASE_URL"}},
		"verify of less than nothing":  {"verify --sample=-1 --database-url " + url + " --redis-url redis://127.0.0.1:1", []string{"--sample"}},
		"flush for less than nothing":  {"flush --wait=-1s", []string{"--wait"}},
		"migrate without a URL":        {"migrate status", []string{"DATABASE_URL"}},
		"an unknown command":           {"serv", []string{"serv"}},
		"an unknown sub-command":       {"migrate sideways", []string{"sideways"}},
		"an unknown flag":              {"status --colour", []string{"colour"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := command(t, program, cleanEnvironment(), strings.Fields(x.args)...)
			require.Equal(t, 2, got.code, "%s%s", got.out, got.err)
			for _, words := range x.says {
				require.Contains(t, got.err, words)
			}
			require.NotContains(t, got.err, "goroutine ")
		})
	}
}

// TestOutput: what no command can print is refused by each, before it does anything.
func TestOutput(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	for args, may := range map[string]string{
		"status": "table or json", "doctor": "table or json", "verify": "table or json", "warm orders": "table or json", "tail": "table or json",
		"dead-letters ls": "table or json", "dead-letters show 1": "table or json", "watch status": "table or json", "bench": "table or json",
		"drill": "text or json",
	} {
		for _, output := range []string{"xml", ""} {
			got := command(t, program, cleanEnvironment(), append(strings.Fields(args), "--output="+output)...)
			require.Equal(t, 2, got.code, "%s: %s%s", args, got.out, got.err)
			require.Contains(t, got.err, fmt.Sprintf("must be %s, not %q", may, output), args)
			require.Empty(t, got.out, args)
		}
	}
}

func TestVersionAndConfig(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	got := command(t, program, cleanEnvironment(), "version")
	require.Zero(t, got.code, got.err)
	require.Regexp(t, `^headpond \S+\n$`, got.out)
	require.Empty(t, got.err)

	good := writeConfig(t, "expose: [public.*]\ntables: { orders: { linger: 20ms, cache: none } }\nlimits: { body: 1MiB }")
	got = command(t, program, cleanEnvironment(), "config", "check", "--config", good)
	require.Equal(t, result{out: "ok\n"}, got)

	got = command(t, program, cleanEnvironment("HEADPOND_CONFIG="+good), "config", "print")
	require.Zero(t, got.code, got.err)
	printed := writeConfig(t, got.out)
	again := command(t, program, cleanEnvironment(), "config", "print", "--config", printed)
	require.Equal(t, got, again, "what is printed is a config that says the same")
}

// TestMigrateStatus: 1 while a migration is missing or nobody answers, 0 when
// all are there.
func TestMigrateStatus(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	env := cleanEnvironment("DATABASE_URL=" + uptest.Postgres(t).URL())
	got := command(t, program, env, "migrate", "status")
	require.Equal(t, 1, got.code, got.err)
	require.Contains(t, got.out, "missing")
	require.Contains(t, got.err, "headpond migrate up")

	for range 2 { // the second finds nothing to do
		got = command(t, program, env, "migrate", "up")
		require.Zero(t, got.code, got.err)
	}
	got = command(t, program, env, "migrate", "status")
	require.Zero(t, got.code, got.err)
	require.Contains(t, got.out, "applied")
	require.NotContains(t, got.out, "missing")

	got = command(t, program, cleanEnvironment("DATABASE_URL=postgres://127.0.0.1:1/none"), "migrate", "status")
	require.Equal(t, 1, got.code, got.err)
}

// TestUpAndStatus: what `up --json` prints is true, `status` shows what the
// API shows, the directory is nobody else's while it runs, and a Ctrl-C leaves
// nothing but the data.
func TestUpAndStatus(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	dir := filepath.Join(uptest.Dir(t), "data")
	h := startUp(t, program, "--split", "--data-dir", dir)
	require.Equal(t, 1, strings.Count(h.out.String(), "\n"), "one line: %s", h.out.String())
	names := []string{"api", "dashboard", "database_url", "redis_url", "pid", "postgres_pid", "redis_pid", "flusher_pid"}
	for _, name := range names {
		require.NotEmpty(t, h.ready[name], name)
	}
	require.Len(t, h.ready, len(names))
	require.EqualValues(t, h.pid(), h.ready["pid"])
	dashboard, _ := h.ready["dashboard"].(string)
	a, err := request(http.MethodGet, dashboard, "", "")
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, a.code)
	require.Contains(t, string(a.body), "oldest unflushed write")
	for name, pid := range h.status(t).Stack {
		require.EqualValues(t, h.ready[name], pid, name)
		require.NotEmpty(t, comm(pid), name)
	}
	h.answers(t)

	got := command(t, program, cleanEnvironment("HEADPOND_API="+h.api), "status", "--output", "json")
	require.Zero(t, got.code, got.err)
	var status state
	require.NoError(t, json.Unmarshal([]byte(got.out), &status))
	require.Contains(t, status.Tables, "orders")
	got = command(t, program, cleanEnvironment(), "status", "--api", h.api)
	require.Zero(t, got.code, got.err)
	require.Regexp(t, `(?m)^accepted \d+ = committed`, got.out)

	second := command(t, program, cleanEnvironment(), "up", "--json", "--listen", "127.0.0.1:0", "--data-dir", dir)
	require.Equal(t, 1, second.code)
	require.Contains(t, second.err, "is in use by process")
	require.Contains(t, second.err, "choose another data directory")
	require.Empty(t, second.out)
	h.answers(t) // the first one does not mind

	left := h.family(t)
	h.terminate()
	require.Zero(t, h.wait(), h.log.String())
	for pid := range left {
		require.Empty(t, comm(pid), "process %d is left", pid)
	}
	got = command(t, program, cleanEnvironment(), "status", "--output", "json", "--api", h.api)
	require.Equal(t, 1, got.code)
	require.Empty(t, got.out)
	require.Contains(t, got.err, "cannot be reached")
}

// answers: the URLs that it has printed lead where they should.
func (h *headpond) answers(t *testing.T) {
	t.Helper()
	require.Equal(t, http.StatusOK, h.get(t, "/readyz").code)
	require.Equal(t, "headpond", value[string](t, h.database, `select current_database()::text`))
	options, err := redis.ParseURL(h.redis)
	require.NoError(t, err)
	c := redis.NewClient(options)
	defer func() { _ = c.Close() }()
	require.Equal(t, "always", c.ConfigGet(t.Context(), "appendfsync").Val()["appendfsync"])
	conn, err := pgx.Connect(t.Context(), h.database)
	require.NoError(t, err)
	require.NoError(t, conn.Close(context.WithoutCancel(t.Context())))
}
