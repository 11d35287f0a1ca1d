package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/api"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
	"github.com/headpond/headpond/flusher/postgres"
)

// sent is one event of a stream.
type sent struct {
	name string
	id   int64
	data []byte
}

// listening is an open stream.
type listening struct {
	t    testing.TB
	body io.ReadCloser
	from *bufio.Reader
	stop func()
}

func (s *stack) listen(lastID string) *listening {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+"/admin/v1/events", nil)
	require.NoError(s.t, err)
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	res, err := (&http.Client{Transport: s.client.Transport}).Do(r)
	require.NoError(s.t, err)
	require.Equal(s.t, 200, res.StatusCode)
	require.Equal(s.t, "text/event-stream", res.Header.Get("Content-Type"))
	l := &listening{t: s.t, body: res.Body, from: bufio.NewReaderSize(res.Body, 1<<20)}
	l.stop = sync.OnceFunc(func() { cancel(); _ = res.Body.Close() })
	s.t.Cleanup(l.stop)
	return l
}

// next gives the next event; an error when the stream ended.
func (l *listening) next() (e sent, err error) {
	for {
		line, err := l.from.ReadString('\n')
		if err != nil {
			return e, err
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch name {
		case "id":
			e.id, _ = strconv.ParseInt(value, 10, 64)
		case "event":
			e.name = value
		case "data":
			e.data = []byte(value)
		case "":
			if e.name != "" {
				return e, nil
			}
		}
	}
}

// until reads on to an event that will do.
func (l *listening) until(name string, will func(data []byte) bool) sent {
	l.t.Helper()
	for range 240 {
		e, err := l.next()
		require.NoError(l.t, err)
		if e.name == name && (will == nil || will(e.data)) {
			return e
		}
	}
	l.t.Fatal("no such event in two minutes")
	return sent{}
}

type historyJSON struct {
	T      []int64
	Total  map[string][]*float64
	Tables map[string]map[string][]*float64
}

// TestEvents: the history first, then the status and a point each second; a stream
// that begins again goes on where it was. The names of tables may be anything.
func TestEvents(t *testing.T) {
	t.Parallel()
	const hostile = `a"<script>alert('1')</script>\`
	s := setup(t, `create table t (id int primary key); create table "a""<script>alert('1')</script>\" (id int primary key)`)
	s.startFlusher()
	s.sampling()
	l := s.listen("")
	first, err := l.next()
	require.NoError(t, err)
	require.Equal(t, "history", first.name)
	s.post("t", `[{"id":1},{"id":2},{"id":3}]`)
	s.flushed()
	s.report()
	status := l.until("status", func(data []byte) bool {
		var st statusJSON
		require.NoError(t, json.Unmarshal(data, &st))
		return st.Tables[s.schema+".t"].Ledger.Committed == 3
	})
	require.NotContains(t, string(status.data), "<script>", "nothing that a careless reader takes for markup")
	document, err := specOf(s.Handler())
	require.NoError(t, err)
	var value any
	require.NoError(t, json.Unmarshal(status.data, &value))
	require.NoError(t, document.valid(document.root("components", "schemas", "Status"), value), "as GET has it")
	point := l.until("point", nil)
	var p historyJSON
	require.NoError(t, json.Unmarshal(point.data, &p))
	require.Equal(t, []int64{point.id}, p.T)
	require.Contains(t, p.Tables, s.schema+"."+hostile)
	require.NotContains(t, string(point.data), "<script>")
	next := l.until("point", nil)
	require.Greater(t, next.id, point.id)
	l.stop()

	// What was missed comes first, and nothing twice.
	again := s.listen(strconv.FormatInt(point.id, 10))
	missed := again.until("history", nil)
	require.NoError(t, json.Unmarshal(missed.data, &p))
	require.Equal(t, next.id, p.T[0])
	live := again.until("point", nil)
	require.Greater(t, live.id, p.T[len(p.T)-1])

	var all historyJSON
	s.get("/admin/v1/history").into(t, &all)
	require.Contains(t, all.T, live.id)
	s.get("/admin/v1/history?since="+time.UnixMilli(next.id).UTC().Format(time.RFC3339Nano)).into(t, &p)
	require.Greater(t, p.T[0], next.id)
	s.get("/admin/v1/history?since=yesterday").problem(t, 400, "bad_filter")
	again.stop()
	require.Eventually(t, func() bool { return s.Listeners() == 0 }, 20*time.Second, 10*time.Millisecond)
}

// TestEventsWithoutServers: Postgres and then Redis are away while a page is open.
// It is told so, the history goes on, what waits grows older, and all comes back.
func TestEventsWithoutServers(t *testing.T) {
	t.Parallel()
	r := uptest.Redis(t)
	s := setupWith(t, `create table t (id int primary key)`, options{redis: r.URL(), cuttable: true})
	s.sampling()
	l := s.listen("")
	s.post("t", `{"id":1}`)
	says := func(verdict, why string) statusJSON {
		t.Helper()
		var st statusJSON
		l.until("status", func(data []byte) bool {
			require.NoError(t, json.Unmarshal(data, &st))
			return st.Verdict == verdict && strings.Contains(st.Why, why)
		})
		return st
	}
	s.wire.cut()
	st := says("blocked", "Postgres does not answer")
	require.EqualValues(t, 1, st.Backlog.Rows)
	s.wire.mend()
	says("stalled", "no flusher reports")

	require.NoError(t, r.Kill())
	st = says("blocked", "Redis does not answer")
	older := says("blocked", "Redis does not answer")
	require.Greater(t, older.Oldest, st.Oldest)
	require.Equal(t, st.Ledger, older.Ledger, "as it was")
	var p historyJSON
	require.NoError(t, json.Unmarshal(l.until("point", nil).data, &p))
	require.Nil(t, p.Total["backlog_rows"][0])
	require.Greater(t, *p.Total["oldest_ms"][0], float64(st.Oldest))
	require.NoError(t, r.Restart(t.Context()))
	s.startFlusher()
	says("ok", "")

	var happened struct{ Events []struct{ Kind string } }
	s.get("/admin/v1/status").into(t, &happened)
	kinds := make(map[string]bool)
	for _, e := range happened.Events {
		kinds[e.Kind] = true
	}
	for _, kind := range []string{"api_started", "postgres_away", "postgres_back", "redis_away", "redis_back", "redis_restarted"} {
		require.True(t, kinds[kind], "%s in %v", kind, kinds)
	}
}

// TestEventsEndWithTheServer: a stop does not wait for pages that are open.
func TestEventsEndWithTheServer(t *testing.T) {
	t.Parallel()
	var served *http.Server
	s := setupWith(t, `create table t (id int primary key)`, options{serve: func(h *http.Server) { served = h }})
	s.sampling()
	all := []*listening{s.listen(""), s.listen(""), s.listen("")}
	for _, l := range all {
		l.until("history", nil)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	require.NoError(t, served.Shutdown(ctx))
	for _, l := range all {
		for err := error(nil); err == nil; {
			_, err = l.next()
		}
	}
	require.Zero(t, s.Listeners())
}

// TestTooManyStreams: beyond the most, a page is told to come again.
func TestTooManyStreams(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key)`)
	s.client.Transport = &http.Transport{MaxIdleConns: 2 * api.MostStreams}
	var all []*listening
	for range api.MostStreams {
		all = append(all, s.listen(""))
	}
	a := s.get("/admin/v1/events")
	a.problem(t, 503, "too_many_streams")
	require.NotEmpty(t, a.header.Get("Retry-After"))
	s.background(s.Sample)
	for _, l := range all {
		require.NotEmpty(t, l.until("status", nil).data)
	}
	all[0].stop()
	require.Eventually(t, func() bool { return s.Listeners() < api.MostStreams }, 20*time.Second, 10*time.Millisecond)
	s.listen("").until("history", nil)
}

// TestSlowReaderIsDropped, and holds up nobody. Its connection takes not one byte
// that it does not read.
func TestSlowReaderIsDropped(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key)`)
	s.sampling()
	pipes := &pipeListener{conns: make(chan net.Conn, 1), done: make(chan struct{})}
	slow := httptest.NewUnstartedServer(s.Handler())
	slow.Listener.Close()
	slow.Listener = pipes
	slow.Config = s.HTTP()
	slow.Start()
	t.Cleanup(slow.Close)
	here, there := net.Pipe()
	pipes.conns <- there
	_, err := fmt.Fprintf(here, "GET /admin/v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return s.Listeners() == 1 }, 20*time.Second, time.Millisecond)
	l := s.listen("")
	for range 3 {
		l.until("point", nil)
	}
	l.stop()
	require.Eventually(t, func() bool { return s.Listeners() == 0 }, 40*time.Second, 10*time.Millisecond)
	_ = here.Close()
}

// pipeListener gives connections that are made by hand.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipeListener) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// TestAdminIsGuarded: pages of other origins change nothing, and in read-only mode
// nobody does; both may look.
func TestAdminIsGuarded(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key)`)
	name := s.schema + ".t"
	s.do("POST", "/admin/v1/tables/"+name+"/pause", "", "Origin", "https://evil.example").problem(t, 403, "cross_origin")
	s.do("DELETE", "/admin/v1/cache/"+name, "", "Sec-Fetch-Site", "cross-site").problem(t, 403, "cross_origin")
	from := func(origin, method, path, body string) int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Origin", origin)
		res, err := s.client.Do(r)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		return res.StatusCode
	}
	require.Equal(t, 200, from(s.url, "POST", "/admin/v1/tables/"+name+"/resume", ""), "our own page")
	require.Equal(t, 200, s.do("POST", "/admin/v1/tables/"+name+"/resume", "").status, "curl")
	require.Equal(t, 200, from("https://evil.example", "GET", "/admin/v1/status", ""), "what it may not read its browser keeps from it")
	require.Equal(t, 202, from("https://other.example", "POST", s.path("t"), `{"id":1}`), "the data's own routes are not its matter")
	s.do("POST", "/admin/v1/local-stack/flusher/kill", "").problem(t, 404, "no_local_flusher")

	var err error
	killed := 0
	s.Server, err = api.New(api.Limits{}, api.Deps{
		Buffer: s.buf, Edge: s.edge, Ledger: s.ledger, Letters: postgres.NewLetters(s.pool), Log: quiet, ReadOnly: true,
		KillFlusher: func(time.Duration) (int, error) { killed++; return 1, nil },
	})
	require.NoError(t, err)
	t.Cleanup(s.Server.Close)
	s.serve()
	s.refresh()
	for _, path := range []string{"/admin/v1/tables/" + name + "/pause", "/admin/v1/local-stack/flusher/kill", "/admin/v1/dead-letters/replay?table=" + name} {
		s.do("POST", path, "").problem(t, 403, "read_only")
	}
	s.do("DELETE", "/admin/v1/dead-letters/1", "").problem(t, 403, "read_only")
	require.Zero(t, killed)
	var st struct {
		ReadOnly bool `json:"read_only"`
	}
	s.get("/admin/v1/status").into(t, &st)
	require.True(t, st.ReadOnly)
}
