package api_test

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// sampling keeps the books, as cmd does, and waits until they are once.
func (s *stack) sampling() {
	s.t.Helper()
	s.background(s.Sample)
	require.Eventually(s.t, func() bool { return len(s.Books()) > 0 }, 20*time.Second, 5*time.Millisecond)
}

// pressureJSON is what the tests read of it in the status.
type pressureJSON struct {
	Verdict, Why string
	Warnings     []string
	Pressure     struct {
		Limit, Resume struct{ Rows, Bytes int64 }
		Memory        *struct {
			Pinned int64 `json:"pinned_bytes"`
			Limit  int64 `json:"limit_bytes"`
		} `json:"redis_memory"`
		Down *int64 `json:"postgres_may_be_down_for_ms"`
	}
	Tables map[string]struct {
		Limit struct {
			Rows, Bytes int64
			Lag         int64 `json:"lag_ms"`
		} `json:"backlog_limit"`
		Resume   struct{ Rows int64 } `json:"backlog_resume"`
		Refusing *struct{ Cap, Detail string }
		Down     *int64 `json:"postgres_may_be_down_for_ms"`
	}
}

func (s *stack) pressure() (out pressureJSON) {
	s.t.Helper()
	s.get("/admin/v1/status").into(s.t, &out)
	return out
}

// TestBacklogResumes: a table that is full is refused in every way and as a
// whole, says why and until when, and goes on by itself when it has drained.
// Another table does not suffer.
func TestBacklogResumes(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table t (id int primary key, v int); create table u (id int primary key)`, options{
		buffer: buffer.Config{Budget: 20 * time.Second, CallTimeout: 10 * time.Second, Caps: buffer.Caps{Rows: 20, Lag: time.Hour}},
	})
	s.sampling()
	name := s.schema + ".t"
	s.post("t", array(18, func(i int) string { return row(`{"id":%d}`, i) }))
	done := s.post("t", `{"id":100}`, "Idempotency-Key", "first")
	s.post("t", `{"id":101}`)
	for _, w := range []badCase{
		{method: "POST", path: s.path("t"), body: `{"id":200}`},
		{method: "POST", path: s.path("t"), body: array(8, func(i int) string { return row(`{"id":%d}`, 200+i) })},
		{method: "POST", path: s.path("t"), body: lines(8, func(i int) string { return row(`{"id":%d}`, 200+i) }), headers: ndjson},
		{method: "PUT", path: s.path("t", "1"), body: `{}`}, {method: "PATCH", path: s.path("t", "1"), body: `{"v":1}`}, {method: "DELETE", path: s.path("t", "1")},
		{method: "POST", path: s.path("t"), body: `{"id":200}`, headers: []string{"Idempotency-Key", "second"}},
	} {
		a := s.do(w.method, w.path, w.body, w.headers...)
		p := a.problem(t, 503, "backlog_full")
		require.Equal(t, "no", p.Applied)
		require.Contains(t, p.Detail, "Table "+name+" is full: 20 rows wait for Postgres, and limits.backlog_rows is 20. None were written in the last seconds.")
		after, err := strconv.Atoi(a.header.Get("Retry-After"))
		require.NoError(t, err)
		require.True(t, 1 <= after && after <= 120, after)
	}
	require.EqualValues(t, 20, s.accepted("t"))
	again := s.post("t", `{"id":100}`, "Idempotency-Key", "first")
	require.Equal(t, "true", again.header.Get("Idempotency-Replayed"), "it was done before: that nothing was applied would be wrong")
	require.Equal(t, done.header.Get("Headpond-Receipt"), again.header.Get("Headpond-Receipt"))
	mixed := `{"op":"put","table":"` + name + `","key":1,"row":{}}` + "\n" + `{"op":"put","table":"` + s.schema + `.u","key":1,"row":{}}`
	some := s.do("POST", "/v1/_bulk", mixed, ndjson...).accept(t, 207)
	require.Equal(t, "backlog_full", some.Errors[0].Code)
	require.Equal(t, 1, some.Accepted)

	st := s.pressure()
	require.Equal(t, "blocked", st.Verdict)
	require.Contains(t, st.Why, "Writes are refused. Table "+name)
	require.Equal(t, "rows", st.Tables[name].Refusing.Cap)
	require.EqualValues(t, 20, st.Tables[name].Limit.Rows)
	require.EqualValues(t, 17, st.Tables[name].Resume.Rows)
	require.EqualValues(t, 3_600_000, st.Tables[name].Limit.Lag)
	require.Nil(t, st.Tables[s.schema+".u"].Refusing)
	require.Positive(t, s.buf.Counters().Refused(buffer.CapRows))

	s.startFlusher()
	s.flushed()
	require.Eventually(t, func() bool { return s.do("POST", s.path("t"), `{"id":300}`).status == 202 }, 20*time.Second, 5*time.Millisecond)
	s.flushed()
	require.Equal(t, 21, s.count("t"))
	require.Zero(t, s.count("headpond.dead_letters"))
	require.Nil(t, s.pressure().Tables[name].Refusing)
}

// TestPostgresMayBeDown: how long, at the rate at which rows come in; nobody
// knows when none do.
func TestPostgresMayBeDown(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table t (id uuid primary key default gen_random_uuid(), v int); create table u (id int primary key)`, options{
		buffer: buffer.Config{Budget: 20 * time.Second, CallTimeout: 10 * time.Second, Caps: buffer.Caps{Rows: 1_000_000, TotalBytes: 1 << 40}},
	})
	s.sampling()
	st := s.pressure()
	require.Nil(t, st.Pressure.Down)
	require.NotNil(t, st.Pressure.Memory)
	require.Positive(t, st.Pressure.Memory.Limit)
	require.Nil(t, st.Tables[s.schema+".t"].Down)
	require.Eventually(t, func() bool {
		s.post("t", `{"v":1}`)
		st = s.pressure()
		return st.Pressure.Down != nil
	}, 20*time.Second, 50*time.Millisecond)
	require.Positive(t, *st.Pressure.Down)
	require.NotNil(t, st.Tables[s.schema+".t"].Down)
	require.LessOrEqual(t, *st.Pressure.Down, *st.Tables[s.schema+".t"].Down)
	require.Nil(t, st.Tables[s.schema+".u"].Down)
}

// TestPostgresMayBeDownByTheSmallestCap: whichever is reached first, 0 when it was,
// and limits.max_lag while nothing comes in.
func TestPostgresMayBeDownByTheSmallestCap(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]options{
		"rows":        {buffer: buffer.Config{Caps: buffer.Caps{Rows: 200}}},
		"bytes":       {buffer: buffer.Config{Caps: buffer.Caps{Bytes: 200 * 40}}},
		"total_rows":  {buffer: buffer.Config{Caps: buffer.Caps{TotalRows: 200}}},
		"total_bytes": {buffer: buffer.Config{Caps: buffer.Caps{TotalBytes: 200 * 40}}},
		"held":        {buffer: buffer.Config{Memory: 100_000}},
		"partition":   {partitions: 1, maxRows: 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o.buffer.Caps.Lag = time.Hour
			s := setupWith(t, `create table t (id uuid primary key default gen_random_uuid(), v int); create table u (id int primary key)`, o)
			s.sampling()
			st := s.pressure()
			require.EqualValues(t, 3_600_000, *st.Pressure.Down, "nothing comes in")
			require.EqualValues(t, 3_600_000, *st.Tables[s.schema+".u"].Down)
			bounded := false
			require.Eventually(t, func() bool {
				a := s.do("POST", s.path("t"), `{"v":1}`)
				st = s.pressure()
				bounded = bounded || a.status == 202 && 0 < *st.Pressure.Down && *st.Pressure.Down < 600_000
				return a.status == 503 && *st.Pressure.Down == 0 && *st.Tables[s.schema+".t"].Down == 0
			}, 60*time.Second, 20*time.Millisecond)
			require.True(t, bounded, "it was seen coming")
		})
	}
}

// TestRedisNearlyFull: writes are refused before Redis refuses them, so that it
// is never out of memory; what can be evicted does not count; and when the
// backlog has drained all goes on.
func TestRedisNearlyFull(t *testing.T) {
	t.Parallel()
	r := uptest.Redis(t)
	s := setupWith(t, `create table t (id bigint generated by default as identity primary key, v text)`, options{redis: r.URL(), partitions: 2})
	ctx := context.Background()
	set := func(name, value string) { require.NoError(t, s.rdb.ConfigSet(ctx, name, value).Err()) }
	set("maxmemory-policy", "volatile-lru")
	set("maxmemory", "24mb")
	// Clean rows of others fill Redis to its limit, and may go.
	for from := range 30 { // in steps that a busy machine sends before the driver's time is over
		pipe := s.rdb.Pipeline()
		for i := range 1000 {
			pipe.Set(ctx, fmt.Sprintf("clean:%d.%d", from, i), strings.Repeat("x", 800), time.Hour)
		}
		_, err := pipe.Exec(ctx)
		require.NoError(t, err)
	}
	s.sampling()
	body := lines(200, func(int) string { return `{"v":"` + strings.Repeat("y", 1000) + `"}` })
	refused := false
	for i := 0; i < 400 && !refused; i++ {
		a := s.do("POST", s.path("t"), body, ndjson...)
		if refused = a.status != 202; refused {
			p := a.problem(t, 503, "backlog_full")
			require.Equal(t, "no", p.Applied)
			require.Contains(t, p.Detail, "Redis is nearly full")
		}
	}
	require.True(t, refused)
	tails, err := s.buf.Tails(ctx, s.places(s.schema+".t"))
	require.NoError(t, err)
	var size uint64
	for _, tail := range tails {
		size += tail.Bytes
	}
	require.Greater(t, size, uint64(10<<20), "what can be evicted did not count")
	errors, err := s.rdb.Info(ctx, "errorstats").Result()
	require.NoError(t, err)
	require.NotContains(t, errors, "errorstat_OOM", "Redis itself never refused")
	st := s.pressure()
	require.Equal(t, "memory", st.Tables[s.schema+".t"].Refusing.Cap)
	require.Zero(t, *st.Pressure.Down)

	accepted := s.accepted("t")
	s.startFlusher()
	s.flushed()
	require.EqualValues(t, accepted, s.count("t"))
}

// TestFateOfWritesIsTold: while Postgres is away it is told that writes wait, and of
// a table whose backlog is full that they are refused.
func TestFateOfWritesIsTold(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table t (id int primary key); create table u (id int primary key)`, options{
		cuttable: true, buffer: buffer.Config{Caps: buffer.Caps{Rows: 2}},
	})
	s.sampling()
	s.post("t", `{"id":1}`)
	s.wire.cut()
	says := func(words string) {
		t.Helper()
		require.Eventually(t, func() bool {
			a, err := s.client.Get(s.url + "/readyz?verbose")
			require.NoError(t, err)
			ready, err := io.ReadAll(a.Body)
			require.NoError(t, err)
			require.NoError(t, a.Body.Close())
			return strings.Contains(s.pressure().Why, words) && strings.Contains(string(ready), words)
		}, 30*time.Second, 50*time.Millisecond, words)
	}
	says("Postgres does not answer. Writes are accepted and wait in Redis; reads")
	s.post("t", `{"id":2}`)
	s.do("POST", s.path("t"), `{"id":3}`).problem(t, 503, "backlog_full")
	says("Writes of " + s.schema + ".t are refused, because the backlog is full; others are accepted and wait in Redis; reads")
	s.post("u", `[{"id":1},{"id":2}]`)
	says("Writes are refused, because the backlog is full; reads")
}
