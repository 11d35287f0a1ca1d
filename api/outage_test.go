package api_test

import (
	"fmt"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

var shortTempered = buffer.Config{Budget: 2 * time.Second, CallTimeout: time.Second}

// TestRedisDown: it is certain that nothing was applied, and it is said.
func TestRedisDown(t *testing.T) {
	t.Parallel()
	r := uptest.Redis(t)
	s := setupWith(t, `create table t (id int primary key, v text)`, options{redis: r.URL(), buffer: shortTempered})
	s.post("t", `{"id":1}`)
	require.NoError(t, r.Kill())
	for name, body := range map[string]string{"one": `{"id":2}`, "array": `[{"id":2},{"id":3},{"id":4},{"id":5}]`} {
		p := s.do("POST", s.path("t"), body).problem(t, 503, "buffer_unavailable")
		require.Equal(t, "no", p.Applied, name)
	}
	a := s.do("POST", s.path("t"), "{\"id\":2}\n{\"id\":3}\n", "Content-Type", "application/x-ndjson")
	a.problem(t, 503, "buffer_unavailable")
	require.NotEmpty(t, a.header.Get("Retry-After"))
	s.get(s.path("t", "1")).problem(t, 503, "buffer_unavailable")
	s.get("/v1/receipts/"+s.schema+".t.0.1.1").problem(t, 503, "buffer_unavailable")
	require.Equal(t, 503, s.get("/readyz").status)
	require.Equal(t, 200, s.get("/livez").status)
	st := s.status()
	require.Equal(t, "blocked", st.Verdict)
	require.False(t, st.Redis.OK)

	require.NoError(t, r.Restart(t.Context()))
	require.Eventually(t, func() bool { return s.get(s.path("t", "1")).status == 200 }, 10*time.Second, 10*time.Millisecond,
		"what was acknowledged is there; the driver dials once a second after many failures")
	s.get(s.path("t", "2")).problem(t, 404, "row_not_found")
	s.post("t", `{"id":2}`)
	require.EqualValues(t, 2, s.accepted("t"))
	s.startFlusher()
	s.flushed()
	require.Equal(t, 2, s.count("t"))
}

// TestRedisRefuses: a Redis that takes no writes refuses them whole, and it is
// said that nothing was applied. When it takes them again, all goes on.
func TestRedisRefuses(t *testing.T) {
	t.Parallel()
	r := uptest.Redis(t)
	s := setupWith(t, `create table t (id int primary key, v int)`, options{redis: r.URL(), buffer: shortTempered})
	s.post("t", `{"id":1}`)
	set := func(args ...any) {
		require.NoError(t, s.rdb.Do(t.Context(), args...).Err())
	}
	for name, c := range map[string]struct{ refuse, mend []any }{
		"OOM":        {[]any{"config", "set", "maxmemory", "1"}, []any{"config", "set", "maxmemory", "0"}},
		"NOREPLICAS": {[]any{"config", "set", "min-replicas-to-write", "1"}, []any{"config", "set", "min-replicas-to-write", "0"}},
		"READONLY":   {[]any{"replicaof", "127.0.0.1", "1"}, []any{"replicaof", "no", "one"}},
	} {
		set(c.refuse...)
		for _, w := range []badCase{
			{method: "POST", path: s.path("t"), body: `{"id":2}`}, {method: "POST", path: s.path("t"), body: `[{"id":2},{"id":3},{"id":4},{"id":5}]`},
			{method: "POST", path: s.path("t"), body: "{\"id\":2}\n{\"id\":3}", headers: ndjson}, {method: "PUT", path: s.path("t", "2"), body: `{}`},
			{method: "PATCH", path: s.path("t", "1"), body: `{"v":1}`}, {method: "DELETE", path: s.path("t", "1")}, {method: "POST", path: s.path("t", "1", "increment"), body: `{"v":1}`},
			{method: "POST", path: "/v1/_bulk", body: `{"op":"put","table":"` + s.schema + `.t","key":2,"row":{}}`, headers: ndjson},
			{method: "POST", path: s.path("t"), body: `{"id":2}`, headers: []string{"Idempotency-Key", "k-" + name}},
		} {
			a := s.do(w.method, w.path, w.body, w.headers...)
			require.Equal(t, "no", a.problem(t, 503, "buffer_unavailable").Applied, "%s: %s %s", name, w.method, w.path)
			require.NotEmpty(t, a.header.Get("Retry-After"))
		}
		require.Equal(t, 200, s.get(s.path("t", "1")).status, "%s: what is known is read", name)
		set(c.mend...)
		require.Eventually(t, func() bool { return s.do("PUT", s.path("t", "1"), `{"v":7}`).status == 202 }, 20*time.Second, 50*time.Millisecond, name)
	}
	s.startFlusher()
	s.flushed()
	require.Equal(t, "1:7", s.text(`select string_agg(id || ':' || v, ' ') from t`))
	require.Zero(t, s.count("headpond.dead_letters"))
}

// TestRedisHangs: nobody can know, and it is said; the row is there once or
// not at all.
func TestRedisHangs(t *testing.T) {
	t.Parallel()
	r := uptest.Redis(t)
	s := setupWith(t, `create table t (id int primary key, v text)`, options{redis: r.URL(), buffer: shortTempered})
	s.post("t", `{"id":1}`)
	require.NoError(t, syscall.Kill(r.PID(), syscall.SIGSTOP))
	resume := func() { _ = syscall.Kill(r.PID(), syscall.SIGCONT) }
	t.Cleanup(resume) // a stopped process cannot be ended politely
	p := s.do("POST", s.path("t"), `{"id":2}`).problem(t, 504, "outcome_unknown")
	require.Equal(t, "unknown", p.Applied)
	require.Contains(t, p.Hint, "same Idempotency-Key")
	many := lines(4, func(i int) string { return row(`{"id":%d}`, i+3) }) // of several partitions
	p = s.do("POST", s.path("t"), many, "Content-Type", "application/x-ndjson").problem(t, 504, "outcome_unknown")
	require.Equal(t, "unknown", p.Applied)
	resume()
	s.post("t", `{"id":7}`) // comes after all that was sent before
	s.startFlusher()
	s.flushed()
	require.LessOrEqual(t, s.count("t"), 7)
	require.EqualValues(t, s.accepted("t"), s.count("t"), "no row twice: that would be a dead letter")
	require.Zero(t, s.count("headpond.dead_letters"))
	for _, id := range []string{"2", "3", "4", "5", "6"} {
		require.Contains(t, []int{200, 404}, s.get(s.path("t", id)).status)
	}
}

// TestOnePartitionFails: rows of one partition cannot be read while others of the
// same request can: these are taken, and once it is mended all are.
func TestOnePartitionFails(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key, v int)`)
	bulk := lines(64, func(i int) string {
		return fmt.Sprintf(`{"op":"increment","table":"%s.t","key":%d,"row":{"v":1}}`, s.schema, i)
	})
	name := "hp:{" + s.places(s.schema + ".t")[s.o.partitions-1].String() + "}:meta"
	require.NoError(t, s.rdb.Rename(t.Context(), name, name+":away").Err())
	require.NoError(t, s.rdb.Set(t.Context(), name, "damaged", 0).Err())
	for range 5 {
		a := s.do("POST", "/v1/_bulk", bulk, ndjson...)
		require.Equal(t, 207, a.status, "%s", a.body)
		require.Contains(t, string(a.body), `"buffer_unavailable"`)
	}
	require.NoError(t, s.rdb.Rename(t.Context(), name+":away", name).Err())
	require.Equal(t, 202, s.do("POST", "/v1/_bulk", bulk, ndjson...).status)
	s.startFlusher()
	s.flushed()
	some := s.count("t where v = 1")
	require.Positive(t, some)
	require.Equal(t, 64-some, s.count("t where v = 6"))
}

// TestPostgresHangs: what needs it is refused in time, and what does not goes on.
// Rows of a request that are known do not wait for one that is not.
func TestPostgresHangs(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table t (id int primary key, v int, ip inet); create table direct (id int primary key, v int);
		insert into t values (1, 1), (2, 1), (3, 1)`, options{cuttable: true})
	s.switchAll("write-through", "direct")
	s.get(s.path("t", "1"))
	s.wire.gate.Lock()
	bulk := lines(3, func(i int) string {
		return fmt.Sprintf(`{"op":"increment","table":"%s.t","key":%d,"row":{"v":1}}`, s.schema, i+1)
	})
	var all sync.WaitGroup
	for _, w := range []badCase{
		{method: "GET", path: s.path("t", "2")}, {method: "POST", path: s.path("t"), body: `{"id":9,"ip":"10.1"}`}, {method: "PATCH", path: s.path("t", "3"), body: `{"v":2}`},
		{method: "PUT", path: s.path("direct", "1"), body: `{"v":1}`}, {method: "PATCH", path: s.path("direct", "1"), body: `{"v":1}`},
	} {
		all.Go(func() {
			a := s.do(w.method, w.path, w.body)
			require.Equal(t, "no", a.problem(t, 503, "store_unavailable").Applied, "%s %s", w.method, w.path)
		})
	}
	all.Go(func() {
		a := s.do("POST", "/v1/_bulk", bulk, ndjson...)
		require.Contains(t, string(a.body), `"accepted":1,"rejected":2`)
	})
	s.post("t", `{"id":4,"v":1}`)
	all.Wait()
	s.wire.gate.Unlock()
	for _, c := range [][2]string{{"t", "2"}, {"t", "3"}} {
		require.Eventually(t, func() bool { return s.get(s.path(c[0], c[1])).status == 200 }, 20*time.Second, 50*time.Millisecond)
	}
	require.Eventually(t, func() bool { return s.do("PUT", s.path("direct", "1"), `{"v":3}`).status < 300 }, 20*time.Second, 50*time.Millisecond)
	s.startFlusher()
	s.flushed()
	require.Equal(t, "1:2 2:1 3:1 4:1", s.text(`select string_agg(id || ':' || v, ' ' order by id) from t`))
	require.Equal(t, "1:3", s.text(`select string_agg(id || ':' || v, ' ' order by id) from direct`))
}

// TestPostgresDown: writes go on, known rows are read, and what cannot be known
// is a 503, never a 404.
func TestPostgresDown(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table t (id bigint generated by default as identity primary key, v text, at timestamptz default now(), ip inet, x int default (random() * 10)::int);
		create table g (id int primary key, v int, twice int generated always as (v * 2) stored);
		create table k (id inet primary key);
		insert into t (id, v) values (1001, 'old'), (1002, 'never read')`, options{cuttable: true})
	require.Equal(t, "headpond; fwd=miss; stored", s.get(s.path("t", "1001")).header.Get("Cache-Status"))
	first := s.post("t", `{"v":"a","x":1}`) // takes a reserve of ids
	s.wire.cut()

	second := s.post("t", `{"v":"b","x":1}`)
	require.Equal(t, 200, s.get(first.location(t)).status)
	require.Equal(t, 200, s.get(second.location(t)).status)
	require.Regexp(t, `^headpond; hit; ttl=\d+$`, s.get(s.path("t", "1001")).header.Get("Cache-Status"))
	a := s.get(s.path("t", "1002"))
	a.problem(t, 503, "store_unavailable")
	require.NotEmpty(t, a.header.Get("Retry-After"))
	s.get(s.path("t", "999")).problem(t, 503, "store_unavailable")
	s.get(s.path("k", "10.0.0.1")).problem(t, 503, "store_unavailable")
	s.get("/v1/receipts/"+second.header.Get("Headpond-Receipt")).problem(t, 503, "store_unavailable")
	for _, method := range []string{"PATCH", "DELETE"} { // what the row holds is not known, so neither is what it will hold
		require.Equal(t, "no", s.do(method, s.path("t", "1002"), `{"v":"c"}`).problem(t, 503, "store_unavailable").Applied)
	}

	before := s.accepted("t") + s.accepted("g")
	for _, body := range []string{`{"v":"c","x":1,"ip":"10.0.0.1"}`, `{"v":"c"}`} { // a judge; a default to evaluate
		require.Equal(t, "no", s.do("POST", s.path("t"), body).problem(t, 503, "store_unavailable").Applied)
	}
	p := s.do("POST", s.path("g"), `{"id":1,"v":1}`, "Prefer", "return=representation").problem(t, 503, "store_unavailable")
	require.Equal(t, "no", p.Applied)
	require.Equal(t, before, s.accepted("t")+s.accepted("g"))
	s.post("g", `{"id":1,"v":1}`)
	s.get(s.path("g", "1")).problem(t, 503, "store_unavailable")

	require.Equal(t, 202, s.post("t", `{"v":"d","x":1}`, "Prefer", "wait=0.2").status)
	require.Equal(t, 200, s.get("/readyz").status, "to take writes meanwhile is what it is for")
	st := s.status()
	require.Equal(t, "blocked", st.Verdict)
	require.False(t, st.Postgres.OK)
	require.True(t, st.Redis.OK)
	require.EqualValues(t, 4, st.Ledger.Pending)

	s.wire.mend()
	s.startFlusher()
	s.flushed()
	require.Equal(t, 2+3, s.count("t"))
	require.Equal(t, 200, s.get(s.path("t", "1002")).status)
}

// TestDraining: no write is taken, and the balancer knows first.
func TestDraining(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key)`)
	s.post("t", `{"id":1}`)
	require.Equal(t, 200, s.get("/readyz").status)
	s.Drain()
	for _, w := range []badCase{
		{method: "POST", path: s.path("t"), body: `{"id":2}`}, {method: "PUT", path: s.path("t", "2"), body: `{}`}, {method: "PATCH", path: s.path("t", "1"), body: `{}`},
		{method: "DELETE", path: s.path("t", "1")}, {method: "POST", path: s.path("t", "1", "increment"), body: `{}`},
		{method: "POST", path: "/v1/_bulk", body: `{"op":"insert","table":"` + s.schema + `.t","row":{"id":2}}`, headers: ndjson},
	} {
		a := s.do(w.method, w.path, w.body, w.headers...)
		require.Equal(t, "no", a.problem(t, 503, "draining").Applied)
		require.NotEmpty(t, a.header.Get("Retry-After"))
	}
	a, closed := s.raw(t, "POST "+s.path("t")+" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n{\"id\":2}")
	a.problem(t, 503, "draining")
	require.True(t, closed, "the client is to go elsewhere")
	require.Equal(t, 503, s.get("/readyz").status)
	require.Equal(t, 503, s.get("/readyz?verbose").status)
	require.Equal(t, 200, s.get("/livez").status)
	require.Equal(t, 200, s.get(s.path("t", "1")).status, "reads go on")
	require.EqualValues(t, 1, s.accepted("t"))
}

// TestBacklogFull: the cap refuses, and a flush opens the way again.
func TestBacklogFull(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table t (id int primary key)`, options{partitions: 1, maxRows: 3})
	s.post("t", `[{"id":1},{"id":2},{"id":3}]`)
	a := s.do("POST", s.path("t"), `{"id":4}`)
	require.Equal(t, "no", a.problem(t, 503, "backlog_full").Applied)
	require.NotEmpty(t, a.header.Get("Retry-After"))
	require.EqualValues(t, 3, s.accepted("t"))
	s.startFlusher()
	s.flushed()
	s.post("t", `{"id":4}`)
}

// TestPanics: the process lives, the client learns nothing of it, and after the
// rows were sent nobody claims that they were not applied.
func TestPanics(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key); insert into t values (1)`)
	s.edge.beforeLoad = func() { panic("secret of the edge") }
	s.ledger.beforeDead = func() { panic("secret of the ledger") }
	a := s.get(s.path("t", "1"))
	require.Equal(t, "no", a.problem(t, 500, "internal").Applied)
	require.NotContains(t, string(a.body), "secret")
	s.startFlusher()
	a = s.do("POST", s.path("t"), `{"id":2}`, "Prefer", "wait=20")
	require.Equal(t, "unknown", a.problem(t, 500, "internal").Applied)
	require.NotContains(t, string(a.body), "secret")
	require.Equal(t, http.StatusAccepted, s.post("t", `{"id":3}`).status)
	s.flushed()
	require.Equal(t, 3, s.count("t"))
}

// TestLeadersPanic: nor do those who write for several requests end the process, or
// leave anybody waiting.
func TestLeadersPanic(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key, v int); insert into t values (1, 1), (2, 1); create table direct (id int primary key, v int)`)
	s.switchAll("write-through", "direct")
	s.edge.beforeLoad = func() { panic("secret of the edge") }
	s.edge.beforeCommit = func() error { panic("secret of the edge") }
	ask := func(status int) {
		var all sync.WaitGroup
		for _, path := range []string{s.path("t", "1"), s.path("t", "2"), s.path("direct", "1"), s.path("direct", "2")} {
			for range 3 {
				all.Go(func() {
					a := s.do("POST", path+"/increment", `{"v":1}`)
					if status < 300 {
						require.Less(t, a.status, 300, "%s", a.body)
						return
					}
					require.Equal(t, "unknown", a.problem(t, status, "internal").Applied)
					require.NotContains(t, string(a.body), "secret")
				})
			}
		}
		all.Wait()
	}
	ask(500)
	s.edge.beforeLoad, s.edge.beforeCommit = nil, nil
	ask(202)
	s.startFlusher()
	s.flushed()
	require.Equal(t, "1:4 2:4", s.text(`select string_agg(id || ':' || v, ' ' order by id) from t`))
	require.Equal(t, "1:3 2:3", s.text(`select string_agg(id || ':' || v, ' ' order by id) from direct`))
}

// TestBeforeTheCatalogIsRead: nothing is known yet, not even that there is no
// such table.
func TestBeforeTheCatalogIsRead(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key)`)
	fresh := newBareServer(t, s)
	for _, path := range []string{"/v1", "/v1/t/1", "/v1/t/_schema"} {
		r, err := s.client.Get(fresh + path)
		require.NoError(t, err)
		require.NoError(t, r.Body.Close())
		require.Equal(t, 503, r.StatusCode, path)
	}
}
