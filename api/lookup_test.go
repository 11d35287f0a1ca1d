package api_test

import (
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/api"
)

// status of the cache that a GET tells.
func (s *stack) cacheStatus(tbl, key string, headers ...string) (status string, code int) {
	s.t.Helper()
	a := s.get(s.path(tbl, key), headers...)
	return strings.TrimPrefix(a.header.Get("Cache-Status"), "headpond; "), a.status
}

func cachedWith(t testing.TB, change func(*api.Served)) *stack {
	t.Helper()
	s := setupWith(t, changeDDL, options{served: change})
	s.exec(`insert into c (id, n) values (1, 1)`)
	return s
}

// firstTime calls f once; other calls do not wait for it.
func firstTime(f func()) func() {
	var called atomic.Bool
	return func() {
		if called.CompareAndSwap(false, true) {
			f()
		}
	}
}

// changed is a change that nobody tells Headpond of.
func (s *stack) changed(n int) { s.exec(`update c set n = $1 where id = 1`, n) }

func (s *stack) n(headers ...string) int {
	s.t.Helper()
	a := s.get(s.path("c", "1"), headers...)
	require.Equal(s.t, http.StatusOK, a.status, string(a.body))
	_, rest, _ := strings.Cut(string(a.body), `"n":`)
	n, err := strconv.Atoi(rest[:strings.IndexByte(rest, ',')])
	require.NoError(s.t, err)
	return n
}

// TestNegative: that there is no row is remembered for a while, and until any
// write of the key.
func TestNegative(t *testing.T) {
	s := cachedWith(t, func(sv *api.Served) { sv.NegativeTTL = time.Minute })
	s.startFlusher()
	status, code := s.cacheStatus("c", "7")
	require.Equal(t, 404, code)
	require.Equal(t, "fwd=miss; stored", status)
	loads := s.edge.loads.Load()
	status, code = s.cacheStatus("c", "7")
	require.Equal(t, 404, code)
	require.Regexp(t, `^hit; ttl=(59|6\d)$`, status) // up to a tenth more
	require.Equal(t, loads, s.edge.loads.Load())
	s.exec(`insert into c (id) values (7)`)
	_, code = s.cacheStatus("c", "7")
	require.Equal(t, 404, code, "nobody has told")
	_, code = s.cacheStatus("c", "7", "Cache-Control", "max-stale, No-Cache")
	require.Equal(t, 200, code)

	for i, write := range []func(path string) *answer{
		func(path string) *answer { return s.do(http.MethodPut, path, `{"n":1}`) },
		func(path string) *answer { return s.do(http.MethodPost, path+"/increment", `{"n":1}`) },
		func(path string) *answer {
			return s.do(http.MethodPost, s.path("c"), `{"id":`+path[strings.LastIndexByte(path, '/')+1:]+`}`)
		},
	} {
		key := strconv.Itoa(20 + i)
		for range 2 {
			_, code = s.cacheStatus("c", key)
			require.Equal(t, 404, code)
		}
		require.Less(t, write(s.path("c", key)).status, 300)
		_, code = s.cacheStatus("c", key)
		require.Equal(t, 200, code)
		s.flushed()
		_, code = s.cacheStatus("c", key)
		require.Equal(t, 200, code)
	}
	// A row that others added is not taken for missing by a write that needs it.
	_, code = s.cacheStatus("c", "30")
	require.Equal(t, 404, code)
	s.exec(`insert into c (id) values (30)`)
	s.do(http.MethodPatch, s.path("c", "30"), `{"n":3}`).accept(t, 202)
	_, code = s.cacheStatus("c", "30")
	require.Equal(t, 200, code)
}

// TestPendingDelete: a delete that is not committed is told as such, as a row is.
func TestPendingDelete(t *testing.T) {
	t.Parallel()
	s := cachedWith(t, nil)
	s.do(http.MethodDelete, s.path("c", "1"), "").accept(t, 202)
	status, code := s.cacheStatus("c", "1")
	require.Equal(t, 404, code)
	require.Equal(t, "hit; detail=pending", status)
	s.startFlusher()
	s.flushed()
	status, code = s.cacheStatus("c", "1")
	require.Equal(t, 404, code)
	require.NotContains(t, status, "pending")
}

// TestNoCache: a row is loaded again for who asks, and for all others.
func TestNoCache(t *testing.T) {
	s := cachedWith(t, nil)
	require.Equal(t, 1, s.n())
	s.changed(2)
	require.Equal(t, 1, s.n())
	require.Equal(t, 2, s.n("Cache-Control", "no-cache"))
	require.Equal(t, 2, s.n())
	s.do(http.MethodPatch, s.path("c", "1"), `{"n":3}`).accept(t, 202)
	require.Equal(t, 3, s.n("Cache-Control", "no-cache"), "what waits in the log is newer")

	// A load that began before does not do.
	s.exec(`insert into c (id, n) values (2, 1)`)
	loaded, goOn := make(chan struct{}), make(chan struct{})
	s.edge.afterLoad = firstTime(func() { close(loaded); <-goOn })
	slow := make(chan *answer)
	go func() { slow <- s.get(s.path("c", "2")) }()
	<-loaded
	s.exec(`update c set n = 2 where id = 2`)
	a := s.get(s.path("c", "2"), "Cache-Control", "no-cache")
	require.Contains(t, string(a.body), `"n":2`)
	close(goOn)
	<-slow
	require.Contains(t, string(s.get(s.path("c", "2")).body), `"n":2`, "the slow one has not put its row over the new one")
}

// TestAge and what is left add up to the time to live.
func TestAge(t *testing.T) {
	s := cachedWith(t, func(sv *api.Served) { sv.TTL = time.Hour })
	require.Equal(t, 1, s.n())
	a := s.get(s.path("c", "1"))
	require.Equal(t, "0", a.header.Get("Age"))
	require.Eventually(t, func() bool { return s.get(s.path("c", "1")).header.Get("Age") == "1" }, 10*time.Second, 50*time.Millisecond)
}

// TestRefreshAhead: a row that is read shortly before its end is loaded again,
// once, and nobody waits.
func TestRefreshAhead(t *testing.T) {
	s := cachedWith(t, func(sv *api.Served) { sv.TTL, sv.RefreshAhead = time.Minute, 2*time.Minute }) // always shortly before its end
	other := s.twin()
	require.Equal(t, 1, s.n())
	require.Equal(t, int64(1), s.edge.loads.Load())
	s.changed(2)
	began, goOn := make(chan struct{}), make(chan struct{})
	s.edge.beforeLoad = firstTime(func() { close(began); <-goOn })
	require.Equal(t, 1, s.n())
	<-began
	for range 10 { // by now it is being loaded: nobody else does it, and nobody waits
		require.Equal(t, 1, s.n())
		require.Equal(t, 1, other.n())
	}
	require.Equal(t, int64(2), s.edge.loads.Load())
	require.Zero(t, other.edge.loads.Load())
	close(goOn)
	require.Eventually(t, func() bool { return s.n() == 2 }, 10*time.Second, time.Millisecond)
}

// TestRefreshAgainstWrite: what is loaded again is not put over a write, nor
// over an invalidation, that came meanwhile.
func TestRefreshAgainstWrite(t *testing.T) {
	s := cachedWith(t, func(sv *api.Served) { sv.TTL, sv.RefreshAhead = time.Minute, 2*time.Minute })
	require.Equal(t, 1, s.n())
	loaded, goOn, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	s.edge.afterLoad = firstTime(func() { close(loaded); <-goOn; time.AfterFunc(200*time.Millisecond, func() { close(done) }) })
	require.Equal(t, 1, s.n())
	<-loaded
	s.do(http.MethodPatch, s.path("c", "1"), `{"n":5}`).accept(t, 202)
	close(goOn)
	<-done
	require.Equal(t, 5, s.n())
	s.startFlusher()
	s.flushed()
	require.Equal(t, 5, s.n())
	require.Equal(t, 5, s.n("Cache-Control", "no-cache"))
	require.Equal(t, 5, s.n())
}

// TestStaleWhileRevalidate: past its time a row is served until it is loaded
// again, and not by writers.
func TestStaleWhileRevalidate(t *testing.T) {
	s := cachedWith(t, func(sv *api.Served) { sv.TTL, sv.Stale = time.Millisecond, time.Minute })
	require.Equal(t, 1, s.n())
	s.changed(2)
	hold := make(chan struct{})
	s.edge.beforeLoad = firstTime(func() { <-hold })
	require.Eventually(t, func() bool {
		status, code := s.cacheStatus("c", "1")
		return code == 200 && regexp.MustCompile(`^hit; ttl=-\d+; detail=stale$`).MatchString(status)
	}, 10*time.Second, time.Millisecond)
	added := s.do(http.MethodPost, s.path("c", "1", "increment"), `{"n":1}`).accept(t, 202)
	require.Contains(t, string(added.Row), `"n":3`, "a write goes on from what Postgres has")
	close(hold)
	require.Equal(t, 3, s.n())
}

// TestExpiryDuringLoad: a lease that ended while its holder was loading is of no
// use.
func TestExpiryDuringLoad(t *testing.T) {
	s := cachedWith(t, nil)
	loaded, goOn := make(chan struct{}), make(chan struct{})
	s.edge.afterLoad = firstTime(func() { close(loaded); <-goOn })
	slow := make(chan *answer)
	go func() { slow <- s.get(s.path("c", "1")) }()
	<-loaded
	keys, err := s.rdb.Keys(t.Context(), "hp:{"+s.schema+".c.*}:row:1").Result()
	require.NoError(t, err)
	require.Len(t, keys, 1)
	require.NoError(t, s.rdb.Del(t.Context(), keys...).Err()) // as if its time had ended
	s.changed(2)
	require.Equal(t, 2, s.n())
	close(goOn)
	require.Equal(t, "headpond; fwd=miss", (<-slow).header.Get("Cache-Status"))
	require.Equal(t, 2, s.n())
}

// TestStampedeOfTwoProcesses: 1,000 clients of two processes ask for a row that nobody has:
// Postgres is asked once.
func TestStampedeOfTwoProcesses(t *testing.T) {
	s := cachedWith(t, nil)
	both := []*stack{s, s.twin()}
	waiting := make(chan struct{})
	first := firstTime(func() { <-waiting })
	for _, api := range both {
		api.edge.beforeLoad = first
	}
	var g sync.WaitGroup
	var mu sync.Mutex
	seen := make(map[string]int)
	for i := range 1000 {
		g.Go(func() {
			a, err := both[i%2].try(http.MethodGet, both[i%2].path("c", "1"), nil)
			if err != nil || a.status != 200 {
				t.Errorf("%v %v", err, a)
				return
			}
			status, _, _ := strings.Cut(a.header.Get("Cache-Status"), "; ttl=")
			mu.Lock()
			seen[status]++
			mu.Unlock()
		})
	}
	time.AfterFunc(300*time.Millisecond, func() { close(waiting) }) // meanwhile most of them come
	g.Wait()
	require.Equal(t, int64(1), both[0].edge.loads.Load()+both[1].edge.loads.Load(), "%v", seen)
	require.Equal(t, 1, seen["headpond; fwd=miss; stored"], "%v", seen)
	t.Log(fmt.Sprint(seen))
}
