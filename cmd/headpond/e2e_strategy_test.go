package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestStrategyRollingRestart: processes that are replaced one by one, each
// generation with another strategy, under writers who repeat what was not
// applied: every write counts once, in order. With a flusher killed in between.
func TestStrategyRollingRestart(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	s := startServers(t, program)
	execute(t, s.postgres.URL(), "create table turns (id int primary key, n bigint not null default 0, last bigint not null default 0)")
	serve := func(strategy string) *headpond {
		h := s.serve(t, "--config", writeConfig(t, "tables: { turns: { strategy: "+strategy+" } }"))
		h.serves(t, "turns")
		return h
	}
	var mu sync.Mutex
	nodes := []*headpond{serve("write-behind"), serve("write-behind")}
	node := func(i int) string {
		mu.Lock()
		defer mu.Unlock()
		return nodes[i%len(nodes)].api
	}
	stop := make(chan struct{})
	var writers sync.WaitGroup
	var done, repeated atomic.Int64
	counts := make([]int64, 5)
	for id := 1; id <= 4; id++ {
		writers.Go(func() {
			send := func(i int, method, path, body, key string) {
				for try := i; ; try++ {
					r, err := http.NewRequest(method, node(try)+path, strings.NewReader(body)) //nolint:noctx // the client has a timeout
					if err != nil {
						t.Error(err)
						return
					}
					r.Header.Set("Content-Type", typeJSON)
					r.Header.Set("Idempotency-Key", key)
					a, err := client.Do(r)
					if err == nil {
						_ = a.Body.Close()
						if a.StatusCode < 300 {
							done.Add(1)
							return
						}
						if a.StatusCode < 500 {
							t.Errorf("%s %s: %s", method, path, a.Status)
							return
						}
					}
					repeated.Add(1)
					time.Sleep(10 * time.Millisecond)
				}
			}
			for i := 1; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				path := fmt.Sprintf("/v1/turns/%d", id)
				send(i, http.MethodPost, path+"/increment", `{"n":1}`, fmt.Sprintf("n-%d-%d", id, i))
				send(i, http.MethodPatch, path, fmt.Sprintf(`{"last":%d}`, i), fmt.Sprintf("l-%d-%d", id, i))
				counts[id] = int64(i)
			}
		})
	}
	progress := func() {
		before := done.Load()
		await(t, "some writes", func() bool { return done.Load() > before+40 || t.Failed() })
	}
	for round, strategy := range []string{"write-through", "write-behind", "cache-aside", "write-behind"} {
		progress()
		for i := range nodes {
			next := serve(strategy)
			mu.Lock()
			old := nodes[i]
			nodes[i] = next
			mu.Unlock()
			if (round+i)%2 == 0 {
				old.kill()
			} else {
				old.terminate()
			}
			require.Equal(t, strategy, strategyOf(t, next, "turns"))
			progress()
		}
	}
	close(stop)
	writers.Wait()
	nodes[0].settled(t)
	for id := 1; id <= 4; id++ {
		require.Equal(t, []int64{counts[id], counts[id]}, column[int64](t, s.postgres.URL(), "select unnest(array[n, last]) from turns where id = $1", id), "row %d", id)
	}
	require.Zero(t, value[int](t, s.postgres.URL(), "select count(*) from headpond.dead_letters"))
	t.Logf("%d writes, %d repeats", done.Load(), repeated.Load())
}

func strategyOf(t *testing.T, h *headpond, table string) string {
	t.Helper()
	var schema struct{ Strategy string }
	require.NoError(t, json.Unmarshal(h.get(t, "/v1/"+table+"/_schema").body, &schema))
	return schema.Strategy
}

// TestDirectOutages: a table that is written directly is read while Redis is
// away; a write then applies nothing; one while Postgres is away neither.
func TestDirectOutages(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	s := startServers(t, program)
	execute(t, s.postgres.URL(), "create table behind (id int primary key, n int); create table through (id int primary key, n int); create table aside (id int primary key, n int)")
	h := s.serve(t, "--config", writeConfig(t, "tables: { through: { strategy: write-through }, aside: { strategy: cache-aside } }"))
	h.serves(t, "behind", "through", "aside")
	direct := []string{"through", "aside"}
	for _, table := range []string{"behind", "through", "aside"} {
		a, err := h.post(table, typeJSON, `{"id":1,"n":1}`)
		require.NoError(t, err)
		require.Less(t, a.code, 300, string(a.body))
	}
	h.settled(t)

	require.NoError(t, s.redis.Kill())
	for _, table := range direct {
		await(t, "reads of "+table, func() bool { return h.get(t, "/v1/"+table+"/1").code == http.StatusOK })
		a := h.get(t, "/v1/"+table+"/1")
		require.Contains(t, a.header.Get("Cache-Status"), "fwd=bypass")
		a, err := request(http.MethodPut, h.api+"/v1/"+table+"/1", typeJSON, `{"n":2}`)
		require.NoError(t, err)
		require.Equal(t, http.StatusServiceUnavailable, a.code, string(a.body))
		require.Equal(t, "no", a.field("applied"))
	}
	require.Equal(t, http.StatusServiceUnavailable, h.get(t, "/v1/behind/1").code)
	require.NoError(t, s.redis.Restart(t.Context()))
	for _, table := range direct {
		await(t, "writes of "+table, func() bool {
			a, err := request(http.MethodPut, h.api+"/v1/"+table+"/1", typeJSON, `{"n":3}`)
			return err == nil && a.code == http.StatusOK
		})
		require.Equal(t, 3, value[int](t, s.postgres.URL(), "select n from "+table))
	}

	require.NoError(t, s.postgres.Kill())
	for _, table := range direct {
		a, err := request(http.MethodPut, h.api+"/v1/"+table+"/1", typeJSON, `{"n":4}`)
		require.NoError(t, err)
		require.Equal(t, http.StatusServiceUnavailable, a.code, string(a.body))
		require.Equal(t, "store_unavailable", a.field("code"))
	}
	require.Equal(t, http.StatusOK, h.get(t, "/v1/through/1").code, "it is cached")
	require.NoError(t, s.postgres.Restart(t.Context()))
	for _, table := range direct {
		await(t, "writes of "+table, func() bool {
			a, err := request(http.MethodPut, h.api+"/v1/"+table+"/1", typeJSON, `{"n":5}`)
			return err == nil && a.code == http.StatusOK
		})
	}
}

// TestWarm: rows are loaded once, and only those that are asked for.
func TestWarm(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	h := startUp(t, program, "--ephemeral", "--config", writeConfig(t, "tables: { passing: { cache: none } }"))
	h.create(t, `create table warmed (a int, b text, n int, primary key (a, b)); insert into warmed select i, 'k,' || i, i from generate_series(1, 500) i;
		create sequence numbers; create table passing (id int primary key); insert into passing values (1), (2)`, "warmed", "passing")
	env := cleanEnvironment("DATABASE_URL="+h.database, "HEADPOND_API="+h.api)
	run := func(args ...string) (out struct{ Rows, Stored, There, Gone, Passed int }) {
		t.Helper()
		got := command(t, program, env, append([]string{"warm", "--output", "json"}, args...)...)
		require.Zero(t, got.code, got.err)
		require.NoError(t, json.Unmarshal([]byte(got.out), &out))
		return out
	}
	out := run("--where", "n <= 100 -- the first", "warmed")
	require.Equal(t, 100, out.Rows)
	require.Equal(t, 100, out.Stored)
	out = run("--limit", "150", "warmed")
	require.Equal(t, 150, out.Rows)
	require.Equal(t, 150, out.Stored+out.There)
	out = run("warmed")
	require.Equal(t, 500, out.Stored+out.There)
	require.Equal(t, 500, run("warmed").There)
	a := h.get(t, "/v1/warmed/7,k%2C7")
	require.Equal(t, http.StatusOK, a.code)
	require.Contains(t, a.header.Get("Cache-Status"), "hit")

	for _, x := range []struct {
		args string
		code int
		says string
	}{
		{"warm", 2, "one table"}, {"warm --limit -1 warmed", 2, "--limit"}, {"warm nothing", 1, "does not exist"},
		{"warm --where nonsense=1 warmed", 1, "nonsense"}, {"warm --api http://127.0.0.1:1 warmed", 1, "API"},
		{"warm passing", 1, "the rows of passing are not cached: this table has cache: none"},
		{"warm --where nextval('numbers')>0 warmed", 1, "cannot execute nextval() in a read-only transaction (SQLSTATE 25006)"},
	} {
		got := command(t, program, env, strings.Fields(x.args)...)
		require.Equal(t, x.code, got.code, "%s: %s", x.args, got.err)
		require.Contains(t, got.err, x.says)
		require.NotContains(t, got.err, "cannot be reached")
	}
	require.False(t, value[bool](t, h.database, "select is_called from numbers"), "what --where writes is not written")
	got := command(t, program, env, "warm", "--where", "true); delete from warmed; select (true", "warmed")
	require.NotZero(t, got.code)
	require.Equal(t, 500, value[int](t, h.database, "select count(*) from warmed"))
}
