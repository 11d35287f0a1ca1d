package main_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// versions is when each row got each of its values.
type versions struct {
	mu sync.Mutex
	at [][]time.Time // by id, by value
}

func (v *versions) committed(from, to int) {
	now := time.Now()
	v.mu.Lock()
	defer v.mu.Unlock()
	for id := from; id <= to; id++ {
		v.at[id] = append(v.at[id], now)
	}
}

// due is the oldest value that may be read of a row: the one of a second ago.
func (v *versions) due(id int, now time.Time) int {
	v.mu.Lock()
	defer v.mu.Unlock()
	n := 0
	for n < len(v.at[id]) && now.Sub(v.at[id][n]) > time.Second {
		n++
	}
	return n
}

// TestWatchUnderLoad: 10,000 rows are changed behind Headpond's back, by one
// statement and by 10,000, while they and others are read and written. No read is
// older than a second, the others stay hits, and what Headpond itself writes
// makes nothing leave.
func TestWatchUnderLoad(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	const touched, all = 10_000, 12_000
	h := startUp(t, program, "--ephemeral", "--config", writeConfig(t, "tables: { seen: { watch: notify } }"))
	h.create(t, fmt.Sprintf("create table seen (id int primary key, v int not null); insert into seen select i, 0 from generate_series(1, %d) i", all), "seen")
	await(t, "the triggers", func() bool {
		return value[int](t, h.database, "select count(*) from pg_trigger where tgname like 'headpond_watch%'") == 4
	})
	noted := func() int { return value[int](t, h.database, "select last_value::int from headpond.changes_id_seq") }
	await(t, "the first entry to be done with", func() bool { return value[int](t, h.database, "select count(*) from headpond.changes") == 0 })
	warm := command(t, program, cleanEnvironment("DATABASE_URL="+h.database, "HEADPOND_API="+h.api), "warm", "seen")
	require.Zero(t, warm.code, warm.err)

	seen := &versions{at: make([][]time.Time, touched+1)}
	stop := make(chan struct{})
	var load sync.WaitGroup
	var reads, others, hits, stale, writes atomic.Int64
	for range 6 {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				id := 1 + rand.IntN(touched)
				if rand.IntN(4) == 0 {
					id = touched + 1 + rand.IntN(all-touched)
				}
				began := time.Now()
				a, err := request(http.MethodGet, fmt.Sprintf("%s/v1/seen/%d", h.api, id), "", "")
				if err != nil || a.code != http.StatusOK {
					t.Errorf("read %d: %d %v", id, a.code, err)
					return
				}
				reads.Add(1)
				if id > touched {
					others.Add(1)
					if strings.Contains(a.header.Get("Cache-Status"), "; hit") {
						hits.Add(1)
					}
					continue
				}
				var row struct{ V int }
				if err := json.Unmarshal(a.body, &row); err != nil {
					t.Error(err)
				}
				if row.V < seen.due(id, began) {
					stale.Add(1)
				}
			}
		})
	}
	before := noted()
	load.Go(func() { // Headpond's own writes
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			a, err := request(http.MethodPut, fmt.Sprintf("%s/v1/seen/%d", h.api, all+1+i%100), typeJSON, `{"v":1}`)
			if err != nil || a.code >= 300 {
				t.Errorf("write: %d %v", a.code, err)
				return
			}
			writes.Add(1)
			time.Sleep(2 * time.Millisecond)
		}
	})
	await(t, "own writes", func() bool { return writes.Load() > 200 || t.Failed() })
	h.settledBut(t, 100)
	require.Equal(t, before, noted(), "Headpond's own writes were noted")

	conn := connect(t, h.database)
	began := time.Now()
	_, err := conn.Exec(t.Context(), "update seen set v = v + 1 where id <= $1", touched)
	require.NoError(t, err)
	seen.committed(1, touched)
	t.Logf("one statement: %s", time.Since(began).Round(time.Millisecond))
	require.LessOrEqual(t, noted()-before, 10)
	reach := func() {
		n := reads.Load()
		at := time.Now()
		await(t, "reads", func() bool { return reads.Load() > n+2000 && time.Since(at) > 1500*time.Millisecond || t.Failed() })
	}
	reach()
	began = time.Now()
	_, err = conn.Exec(t.Context(), "set synchronous_commit = off")
	require.NoError(t, err)
	for id := 1; id <= touched; id++ {
		_, err = conn.Exec(t.Context(), "update seen set v = v + 1 where id = $1", id)
		require.NoError(t, err)
		seen.committed(id, id)
	}
	t.Logf("%d statements: %s", touched, time.Since(began).Round(time.Millisecond))
	reach()
	close(stop)
	load.Wait()
	t.Logf("%d reads, %d of rows that nobody touched, %d of those were hits; %d own writes", reads.Load(), others.Load(), hits.Load(), writes.Load())
	require.Zero(t, stale.Load(), "reads that were older than a second")
	require.Equal(t, others.Load(), hits.Load(), "rows that nobody touched left the cache")
	require.Zero(t, value[int](t, h.database, "select count(*) from headpond.changes"))
	require.Contains(t, string(h.get(t, "/metrics").body), `headpond_external_changes_total{table="seen"} 20000`)
	h.settled(t)
}

// settledBut waits until not more than some rows wait.
func (h *headpond) settledBut(t *testing.T, rows int64) {
	t.Helper()
	await(t, "flushes", func() bool {
		l := h.status(t).Ledger
		return l.Committed > 0 && l.Pending <= rows
	})
}

// TestWatchConflicts: a change waits while its row is changed in Postgres, by
// other columns. Where the buffer wins both are there afterwards, and what is read
// is what is in Postgres; where the database wins the change is a dead letter.
func TestWatchConflicts(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	s := startServers(t, program)
	execute(t, s.postgres.URL(), "create table buffered (id int primary key, a int, b int); create table based (id int primary key, a int, b int); insert into buffered values (1, 0, 0); insert into based values (1, 0, 0), (2, 0, 0)")
	installed := command(t, program, s.env(), "watch", "install", "buffered", "public.based")
	require.Zero(t, installed.code, installed.err)
	config := writeConfig(t, "tables_default: { watch: notify }\ntables: { buffered: {}, based: { on_external_change: database-wins } }")
	h := s.serve(t, "--role", "api", "--config", config)
	h.serves(t, "buffered", "based")
	for _, name := range []string{"buffered", "based"} {
		a, err := request(http.MethodPatch, h.api+"/v1/"+name+"/1", typeJSON, `{"a":5}`)
		require.NoError(t, err)
		require.Less(t, a.code, 300, string(a.body))
	}
	_, err := request(http.MethodPatch, h.api+"/v1/based/2", typeJSON, `{"a":6}`)
	require.NoError(t, err)
	execute(t, s.postgres.URL(), "update buffered set b = 9; update based set b = 9 where id = 1")
	states := command(t, program, s.env(), "watch", "status")
	require.Zero(t, states.code, states.out)
	require.Contains(t, states.out, "buffered")

	// The flush waits for the rows until the changes were looked at.
	conn := connect(t, s.postgres.URL())
	held, err := conn.Begin(t.Context())
	require.NoError(t, err)
	_, err = held.Exec(t.Context(), "select from buffered, based for update")
	require.NoError(t, err)
	start(t, program, s.env(), "serve", "--role", "flusher", "--config", config)
	await(t, "the conflicts", func() bool {
		return value[int](t, s.postgres.URL(), "select count(*) from headpond.conflicts where key = '1'") == 2
	})
	require.NoError(t, held.Rollback(t.Context()))
	h.settled(t)
	require.Equal(t, []int{5, 9}, column[int](t, s.postgres.URL(), "select unnest(array[a, b]) from buffered"))
	require.Equal(t, []int{0, 9, 6, 0}, column[int](t, s.postgres.URL(), "select unnest(array[a, b]) from based order by id"))
	require.Equal(t, []string{"HP001"}, column[string](t, s.postgres.URL(), "select sqlstate from headpond.dead_letters where table_name = 'based' and key = '1'"))
	for path, want := range map[string]string{"buffered/1": `"b":9`, "based/1": `"b":9`, "based/2": `"a":6`} {
		at := time.Now()
		await(t, path, func() bool { return strings.Contains(string(h.get(t, "/v1/"+path).body), want) })
		t.Logf("%s after %s", path, time.Since(at).Round(time.Millisecond))
	}
}

// TestWatchOutages: while Redis or the flusher is away, what others change waits,
// and leaves the cache afterwards.
func TestWatchOutages(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	s := startServers(t, program)
	execute(t, s.postgres.URL(), "create table seen (id int primary key, v int); insert into seen values (1, 1)")
	require.Zero(t, command(t, program, s.env(), "watch", "install", "seen").code)
	h := s.serve(t, "--role", "api")
	h.serves(t, "seen")
	reads := func(v int) bool {
		a, err := request(http.MethodGet, h.api+"/v1/seen/1", "", "")
		return err == nil && a.code == http.StatusOK && strings.Contains(string(a.body), fmt.Sprintf(`"v":%d`, v))
	}
	first := flusher(t, program, h.database, h.redis)
	first.logged("catalog read")
	await(t, "the entry of the installation", func() bool { return value[int](t, h.database, "select count(*) from headpond.changes") == 0 })
	require.True(t, reads(1))

	first.kill()
	execute(t, h.database, "update seen set v = 2")
	require.True(t, reads(1), "it is cached, and nobody takes it out")
	second := flusher(t, program, h.database, h.redis)
	await(t, "the change to be seen", func() bool { return reads(2) })

	require.NoError(t, s.redis.Kill())
	execute(t, h.database, "update seen set v = 3")
	await(t, "the watcher to notice", func() bool { return strings.Contains(second.log.String(), "do not leave the cache") })
	require.NoError(t, s.redis.Restart(t.Context()))
	await(t, "the change to be seen", func() bool { return reads(3) })
	require.Zero(t, value[int](t, h.database, "select count(*) from headpond.changes"))
}

// TestWatchWarns: a table that should be watched and is not is told of, with the
// command that mends it.
func TestWatchWarns(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	s := startServers(t, program)
	execute(t, s.postgres.URL(), "create table seen (id int primary key, v int); insert into seen values (1, 1); create table parted (id int primary key) partition by range (id)")
	h := s.serve(t, "--config", writeConfig(t, "tables: { seen: { watch: notify } }"))
	h.serves(t, "seen")
	warned := func() string { return string(h.get(t, "/admin/v1/status").body) }
	await(t, "a warning", func() bool { return strings.Contains(warned(), "headpond watch install seen") })
	require.Contains(t, h.log.String(), "headpond watch install seen")
	watch := func(args ...string) result {
		return command(t, program, s.env(), append([]string{"watch"}, args...)...)
	}
	require.Zero(t, watch("install", "seen").code)
	await(t, "the warning to go", func() bool { return !strings.Contains(warned(), "headpond watch install") })
	execute(t, h.database, "alter table seen disable trigger headpond_watch_update")
	await(t, "a warning", func() bool { return strings.Contains(warned(), "headpond_watch_update is disabled") })
	require.Equal(t, 1, watch("status").code)
	require.Contains(t, string(h.get(t, "/v1/seen/1").body), `"v":1`)
	execute(t, h.database, "update seen set v = 2")
	execute(t, h.database, "alter table seen enable trigger headpond_watch_update")
	await(t, "what was changed meanwhile", func() bool { return strings.Contains(string(h.get(t, "/v1/seen/1").body), `"v":2`) })
	require.Zero(t, watch("remove", "seen").code)
	await(t, "a warning", func() bool { return strings.Contains(warned(), "headpond watch install seen") })

	for _, x := range []struct {
		args string
		code int
		says string
	}{
		{"install", 2, "name at least one table"}, {"install nothing", 1, `no table "nothing"`}, {"install parted", 1, "partitioned"},
		{"remove nothing", 1, `no table "nothing"`}, {"frobnicate", 2, "frobnicate"},
	} {
		got := watch(strings.Fields(x.args)...)
		require.Equal(t, x.code, got.code, "%s: %s", x.args, got.err)
		require.Contains(t, got.err, x.says)
	}
	got := watch("status", "--output", "json")
	require.Zero(t, got.code, got.err)
	require.Contains(t, got.out, `"tables":`)
}
