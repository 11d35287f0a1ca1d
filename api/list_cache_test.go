package api_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/api"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

const numbers = `create table t (id int primary key, v text); insert into t select i, 'v' || i from generate_series(1, 3) i`

func setupLists(t *testing.T, ddl string) *stack {
	t.Helper()
	return setupWith(t, ddl, options{listTTL: time.Hour})
}

func (a *answer) cacheStatus() string { return a.header.Get("Cache-Status") }

// TestListCached: the headers of a list that is cached, and what a client may
// ask of it.
func TestListCached(t *testing.T) {
	t.Parallel()
	s := setupLists(t, numbers)
	path := s.path("t") + "?select=id"
	a := s.get(path, "Cache-Control", "only-if-cached")
	a.problem(t, 504, "not_cached")
	require.Equal(t, "headpond; fwd=miss", a.cacheStatus())
	require.Zero(t, s.edge.lists.Load())

	miss := s.get(path)
	require.Equal(t, "1 2 3", miss.listed(t, "id"))
	require.Equal(t, "headpond; fwd=miss; stored", miss.cacheStatus())
	require.Empty(t, miss.header.Get("Age"))
	for _, control := range []string{"-", "only-if-cached"} {
		hit := s.get(path, "Cache-Control", control)
		require.Equal(t, 200, hit.status)
		require.Equal(t, miss.body, hit.body)
		require.Regexp(t, `^headpond; hit; ttl=3[5-9]\d\d$`, hit.cacheStatus())
		require.Regexp(t, `^\d+$`, hit.header.Get("Age"))
		for _, name := range []string{"ETag", "Headpond-Durability", "Content-Type"} {
			require.NotEmpty(t, hit.header.Get(name), name)
			require.Equal(t, miss.header.Get(name), hit.header.Get(name), name)
		}
	}
	same := s.get(path, "If-None-Match", miss.header.Get("ETag"))
	require.Equal(t, 304, same.status)
	require.Empty(t, same.body)
	require.Equal(t, miss.header.Get("ETag"), same.header.Get("ETag"))
	head := s.do(http.MethodHead, path, "")
	require.Equal(t, 200, head.status)
	require.Equal(t, fmt.Sprint(len(miss.body)), head.header.Get("Content-Length"))
	require.Equal(t, 304, s.do(http.MethodHead, path, "", "If-None-Match", "*").status)
	require.EqualValues(t, 1, s.edge.lists.Load())
	hits, misses := api.ListReads(s.Server, s.schema+".t")
	require.EqualValues(t, []int64{5, 1}, []int64{hits, misses})

	s.exec("insert into t values (4, 'behind')") // nobody tells Headpond
	require.Equal(t, "1 2 3", s.get(path).listed(t, "id"))
	again := s.get(path, "Cache-Control", "no-cache")
	require.Equal(t, "1 2 3 4", again.listed(t, "id"))
	require.Equal(t, "headpond; fwd=miss; stored", again.cacheStatus())
	require.NotEqual(t, miss.header.Get("ETag"), again.header.Get("ETag"))
	require.Equal(t, 200, s.get(path, "If-None-Match", miss.header.Get("ETag")).status)
	require.Equal(t, "1 2 3 4", s.get(path, "Cache-Control", "only-if-cached").listed(t, "id"))
	require.NoError(t, s.buf.TouchLists(t.Context(), s.schema+".t"))
	s.get(path, "Cache-Control", "only-if-cached").problem(t, 504, "not_cached")
}

func TestListNotCached(t *testing.T) {
	t.Parallel()
	s := setup(t, numbers)
	for range 2 {
		a := s.get(s.path("t"))
		require.Equal(t, "1 2 3", a.listed(t, "id"))
		require.Equal(t, "headpond; fwd=miss", a.cacheStatus())
		require.Equal(t, 304, s.get(s.path("t"), "If-None-Match", a.header.Get("ETag")).status)
	}
	require.EqualValues(t, 4, s.edge.lists.Load())
	s.get(s.path("t"), "Cache-Control", "only-if-cached").problem(t, 504, "not_cached")
}

func TestListExpires(t *testing.T) {
	t.Parallel()
	s := setupWith(t, numbers, options{listTTL: 300 * time.Millisecond})
	require.Equal(t, "1 2 3", s.get(s.path("t")).listed(t, "id"))
	s.exec("insert into t values (4, 'behind')")
	require.Eventually(t, func() bool { return s.get(s.path("t")).listed(t, "id") == "1 2 3 4" }, 10*time.Second, 10*time.Millisecond)
}

// TestListSameQuery: the same question is the same list, and another is not.
func TestListSameQuery(t *testing.T) {
	t.Parallel()
	s := setupLists(t, `create table t (id int primary key, a int, b text); insert into t values (1, 1, 'x'), (2, 2, 'y'), (3, 1, 'z')`)
	all := make(map[string]string) // body by first query
	for _, alike := range [][]string{
		{"", "?limit=100", "?offset=0&limit=100", "?order=id", "?order=id.asc.nullslast", "?select=*", "?select=id,a,b"},
		{"?a=eq.1&limit=5", "?limit=5&a=eq.1", "?limit=5&a=eq.1&a=eq.1", "?a=not.neq.1&limit=5", "?%22a%22=eq.1&limit=5"},
		{"?a=eq.1&b=eq.x", "?b=eq.x&a=eq.1"},
		{"?a=gte.1&a=lt.2", "?a=lt.2&a=gte.1"},
		{"?id=in.(1,3)", "?id=in.(3,1)", "?id=in.(3,1,3)", "?id=in.(%223%22,1)"},
		{"?a=is.null", "?a=is.NULL"}, {"?a=not.is.null"},
		{"?select=b,id"}, {"?select=id,b"}, {"?order=a"}, {"?order=a,b"}, {"?order=b,a"}, {"?order=a.desc"}, {"?order=a.nullsfirst"},
		{"?limit=2"}, {"?limit=2&offset=2"}, {"?offset=2"}, {"?a=eq.2"}, {"?a=neq.1"}, {"?id=eq.1"}, {"?id=in.(1)"}, {"?b=eq.1"}, {"?b=like.1"},
		{"?b=in.(x,y)"}, {"?b=in.(%22x,y%22)"}, {`?b=in.(%22x\%22%20\%22y%22)`},
	} {
		for i, q := range alike {
			before := s.edge.lists.Load()
			a := s.get(s.path("t") + q)
			require.Equal(t, 200, a.status, q)
			if i == 0 {
				require.Equal(t, before+1, s.edge.lists.Load(), "%q is another list", q)
				require.Equal(t, "headpond; fwd=miss; stored", a.cacheStatus())
				all[alike[0]] = string(a.body)
				continue
			}
			require.Equal(t, before, s.edge.lists.Load(), "%q is %q", q, alike[0])
			require.Equal(t, all[alike[0]], string(a.body))
		}
	}
}

// TestListRefusalsAreNotCached: what Postgres cannot be asked is asked again,
// and nobody waits for it.
func TestListRefusalsAreNotCached(t *testing.T) {
	t.Parallel()
	s := setupLists(t, numbers)
	for i := range 3 {
		s.get(s.path("t")+"?id=eq.x").problem(t, 400, "bad_filter")
		require.EqualValues(t, i+1, s.edge.lists.Load())
		s.get(s.path("t")+"?nope=eq.1").problem(t, 400, "bad_filter")
	}
	keys, err := s.rdb.Keys(t.Context(), "hp:{"+s.schema+".t}:list:*").Result()
	require.NoError(t, err)
	require.Empty(t, keys)
}

func TestListTooLargeForRedis(t *testing.T) {
	t.Parallel()
	s := setupLists(t, `create table t (id int primary key, v text); insert into t select i, repeat('x', 1000) from generate_series(1, 300) i`)
	for range 2 {
		a := s.get(s.path("t") + "?limit=300")
		require.Len(t, strings.Fields(a.listed(t, "id")), 300)
		require.Equal(t, "headpond; fwd=miss", a.cacheStatus())
	}
	require.EqualValues(t, 2, s.edge.lists.Load())
	s.get(s.path("t") + "?limit=200")
	require.Regexp(t, "; hit", s.get(s.path("t")+"?limit=200").cacheStatus())
}

// TestListAfterAlter: a list has the columns that the table has now.
func TestListAfterAlter(t *testing.T) {
	t.Parallel()
	s := setupLists(t, `create table t (id int primary key, n numeric(8,2)); insert into t values (1, 1.5)`)
	body := func() string { return string(s.get(s.path("t")).body) }
	require.Equal(t, `[{"id":1,"n":1.50}]`+"\n", body())
	for _, c := range [][2]string{
		{"alter table t add c text default 'new'", `[{"id":1,"n":1.50,"c":"new"}]`},
		{"alter table t alter n type numeric(8,3)", `[{"id":1,"n":1.500,"c":"new"}]`},
		{"alter table t rename id to number", `[{"number":1,"n":1.500,"c":"new"}]`},
		{"alter table t drop c", `[{"number":1,"n":1.500}]`},
	} {
		s.exec(c[0])
		s.refresh()
		require.Equal(t, c[1]+"\n", body(), c[0])
	}
	s.exec("drop table t; create table t (id int primary key, n numeric(8,2))")
	s.refresh()
	require.Equal(t, "[]\n", body(), "another table of that name")
}

// TestListAfterOwnWrite: who has heard that a write is committed, in whatever
// way, is never given a list from before it: in no process, while others list
// all the time.
func TestListAfterOwnWrite(t *testing.T) {
	t.Parallel()
	s := setupLists(t, `create table t (id int primary key)`)
	s.startFlusher()
	other := s.twin()
	path := s.path("t") + "?order=id.desc&limit=3"
	done := make(chan struct{})
	stop := sync.OnceFunc(func() { close(done) })
	var listing sync.WaitGroup
	defer listing.Wait()
	defer stop()
	var hits atomic.Int64
	for _, p := range []*stack{s, other, other} {
		listing.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				a, err := p.try(http.MethodGet, path, nil)
				if err != nil || a.status != 200 {
					t.Error(err, a)
					return
				}
				if strings.HasPrefix(a.cacheStatus(), "headpond; hit") {
					hits.Add(1)
				}
			}
		})
	}
	for i := range 200 {
		var headers, ask []string
		if i%4 == 0 {
			headers = []string{"Prefer", "wait=30"}
		}
		a := s.post("t", row(`{"id":%d}`, i), headers...)
		switch i % 4 {
		case 0:
			require.Equal(t, 201, a.status, string(a.body))
		case 1:
			state := other.get("/v1/receipts/" + a.header.Get("Headpond-Receipt") + "?wait=30s").fields(t)["state"]
			require.Equal(t, `"committed"`, string(state))
		case 2:
			require.Equal(t, 200, other.do(http.MethodPost, s.path("t", "flush")+"?wait=30s", "").status)
		case 3:
			ask = []string{"Prefer", "wait=30"}
		}
		for _, p := range []*stack{s, other} {
			ids := p.get(path, ask...).listed(t, "id")
			require.Regexp(t, fmt.Sprintf(`^%d\b`, i), ids, "by way %d", i%4)
		}
	}
	stop()
	listing.Wait()
	require.Positive(t, hits.Load())
}

// TestListAfterLostSettle: a flusher that died before it could say what it
// committed, and a client that hears of it from Postgres.
func TestListAfterLostSettle(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table t (id int primary key)`, options{listTTL: time.Hour, partitions: 1})
	a := s.post("t", `{"id":1}`)
	require.Empty(t, s.get(s.path("t")).listed(t, "id"))
	s.exec(`insert into t values (1)`)
	s.exec(`update headpond.watermarks set epoch = 1, seq = 1 where table_name = $1`, s.schema+".t")
	require.Empty(t, s.get(s.path("t")).listed(t, "id"), "nobody has said so")
	state := s.get("/v1/receipts/" + a.header.Get("Headpond-Receipt")).fields(t)["state"]
	require.Equal(t, `"committed"`, string(state))
	require.Equal(t, "1", s.get(s.path("t")).listed(t, "id"))
}

// TestListSlowLoad: a load that began before a flush comes back after it, and
// nobody else is given what it found.
func TestListSlowLoad(t *testing.T) {
	t.Parallel()
	s := setupLists(t, numbers)
	s.startFlusher()
	began, resume := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	s.edge.afterList = func() {
		if first.CompareAndSwap(false, true) {
			close(began)
			<-resume
		}
	}
	old := make(chan *answer)
	go func() {
		a, err := s.try(http.MethodGet, s.path("t"), nil)
		if err != nil {
			t.Error(err)
		}
		old <- a
	}()
	<-began
	require.Equal(t, 201, s.post("t", `{"id":4}`, "Prefer", "wait=30").status)
	require.Equal(t, "4", s.get(s.path("t")+"?id=gt.3").listed(t, "id"), "another list makes a new version")
	close(resume)
	require.Equal(t, "1 2 3", (<-old).listed(t, "id"), "it came before the write")
	for range 2 {
		require.Equal(t, "1 2 3 4", s.get(s.path("t")).listed(t, "id"))
	}
}

// TestListDoesNotJoinAnOlderLoad: in one process too, whoever comes after a
// flush does not share a load from before it, nor does who wants the list fresh.
func TestListDoesNotJoinAnOlderLoad(t *testing.T) {
	t.Parallel()
	s := setupLists(t, numbers)
	s.client.Timeout = 10 * time.Second // of a request that did
	s.startFlusher()
	began, resume := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(resume) })
	var loads atomic.Int64
	s.edge.afterList = func() {
		if loads.Add(1) <= 2 {
			began <- struct{}{}
			<-resume
		}
	}
	var old sync.WaitGroup
	defer old.Wait()
	defer release()
	for _, q := range []string{"?limit=40", "?limit=50"} {
		old.Go(func() { _, _ = s.try(http.MethodGet, s.path("t")+q, nil) })
		<-began
	}
	s.exec("insert into t values (5, 'behind')")
	require.Equal(t, "1 2 3 5", s.get(s.path("t")+"?limit=40", "Cache-Control", "no-cache").listed(t, "id"))
	s.post("t", `{"id":4}`, "Prefer", "wait=30")
	require.Equal(t, "1 2 3 4 5", s.get(s.path("t")+"?limit=50").listed(t, "id"))
	release()
	old.Wait()
	for _, q := range []string{"?limit=40", "?limit=50"} {
		require.Equal(t, "1 2 3 4 5", s.get(s.path("t")+q).listed(t, "id"))
	}
}

// asking counts what a process sends to Redis.
type asking struct{ calls atomic.Int64 }

func (c *asking) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *asking) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.calls.Add(1)
		return next(ctx, cmd)
	}
}

func (c *asking) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// TestListLoadedOnce: of many requests in two processes one asks Postgres.
func TestListLoadedOnce(t *testing.T) {
	t.Parallel()
	s := setupLists(t, numbers)
	other := s.twin()
	var here, there asking
	s.rdb.AddHook(&here)
	other.rdb.AddHook(&there)
	s.edge.beforeList = func() {
		require.Eventually(t, func() bool { return here.calls.Load() > 32 && there.calls.Load() > 32 }, 10*time.Second, time.Millisecond)
	}
	other.edge.beforeList = s.edge.beforeList
	var all sync.WaitGroup
	var stored, collapsed atomic.Int64
	for i := range 64 {
		p := []*stack{s, other}[i%2]
		all.Go(func() {
			a, err := p.try(http.MethodGet, s.path("t"), nil)
			if err != nil || a.status != 200 || !strings.Contains(string(a.body), "v3") {
				t.Error(err, a)
				return
			}
			switch a.cacheStatus() {
			case "headpond; fwd=miss; stored":
				stored.Add(1)
			case "headpond; fwd=miss; collapsed":
				collapsed.Add(1)
			}
		})
	}
	all.Wait()
	require.EqualValues(t, 1, s.edge.lists.Load()+other.edge.lists.Load())
	require.EqualValues(t, 1, stored.Load())
	require.Positive(t, collapsed.Load())
}

// TestListLoaderLeaves: the request that loads a list may go; others get it all
// the same. When all have gone Postgres is not kept busy for nobody.
func TestListLoaderLeaves(t *testing.T) {
	t.Parallel()
	s := setupLists(t, `create table t (id int primary key); insert into t values (1);
		create table slow (id int primary key, n int); insert into slow select i, i from generate_series(1, 3) i`)
	ctx, cancel := context.WithCancel(t.Context())
	ask := func(path string) error {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
		if err != nil {
			return err
		}
		res, err := s.client.Do(r)
		if err == nil {
			err = res.Body.Close()
		}
		return err
	}
	joined := make(chan *answer)
	s.edge.beforeList = func() {
		go func() {
			a, err := s.try(http.MethodGet, s.path("t"), nil)
			if err != nil {
				t.Error(err)
			}
			joined <- a
		}()
		riders := func(n int) {
			require.Eventually(t, func() bool { return s.ListRiders() == n }, 10*time.Second, time.Millisecond)
		}
		riders(2)
		cancel()
		riders(1)
	}
	require.ErrorIs(t, ask(s.path("t")), context.Canceled)
	a := <-joined
	require.Equal(t, "1", a.listed(t, "id"))
	require.EqualValues(t, 1, s.edge.lists.Load())

	locked, err := s.db.Begin(t.Context())
	require.NoError(t, err)
	_, err = locked.Exec(t.Context(), "lock table slow")
	require.NoError(t, err)
	s.edge.beforeList = nil
	ctx, cancel = context.WithCancel(t.Context())
	failed := make(chan error)
	go func() { failed <- ask(s.path("slow")) }()
	waiting := func() string {
		return s.text(`select count(*)::text from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`)
	}
	require.Eventually(t, func() bool { return waiting() == "1" }, 10*time.Second, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-failed, context.Canceled)
	require.Eventually(t, func() bool { return waiting() == "0" }, 10*time.Second, time.Millisecond)
	require.NoError(t, locked.Rollback(t.Context()))
	require.Equal(t, "headpond; fwd=miss; stored", s.get(s.path("slow")).cacheStatus(), "the lease was given back")
}

// TestListWithoutRedis: Postgres answers, soon, and it is said.
func TestListWithoutRedis(t *testing.T) {
	t.Parallel()
	r := uptest.Redis(t)
	s := setupWith(t, numbers, options{redis: r.URL(), buffer: shortTempered, listTTL: time.Hour})
	s.get(s.path("t"))
	require.Regexp(t, "; hit", s.get(s.path("t")).cacheStatus())
	require.NoError(t, syscall.Kill(r.PID(), syscall.SIGSTOP))
	resume := func() { _ = syscall.Kill(r.PID(), syscall.SIGCONT) }
	t.Cleanup(resume)
	bypassed := func() {
		a := s.get(s.path("t"))
		require.Equal(t, "1 2 3", a.listed(t, "id"))
		require.Equal(t, "headpond; fwd=bypass", a.cacheStatus())
		s.get(s.path("t"), "Cache-Control", "only-if-cached").problem(t, 503, "buffer_unavailable")
	}
	bypassed()
	resume()
	require.Eventually(t, func() bool { return strings.Contains(s.get(s.path("t")).cacheStatus(), "; hit") }, 10*time.Second, 10*time.Millisecond)
	require.NoError(t, s.rdb.ConfigSet(t.Context(), "maxmemory-policy", "noeviction").Err())
	require.NoError(t, s.rdb.ConfigSet(t.Context(), "maxmemory", "1").Err())
	require.Regexp(t, "; hit", s.get(s.path("t")).cacheStatus(), "what is there is read from a Redis that is full")
	require.Equal(t, "headpond; fwd=bypass", s.get(s.path("t")+"?limit=2").cacheStatus())
	require.NoError(t, s.buf.TouchLists(t.Context(), s.schema+".t"), "and what is old is dropped")
	require.NoError(t, s.rdb.ConfigSet(t.Context(), "maxmemory", "0").Err())
	require.NoError(t, r.Kill())
	bypassed()
}
