package api_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/api"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// flushed is the answer to a flush.
type flushed struct {
	Flushed bool
	Tables  []struct {
		Table string
		Rows  int
	}
}

func (a *answer) flushed(t testing.TB) flushed {
	t.Helper()
	require.Equal(t, 200, a.status, string(a.body))
	var f flushed
	a.into(t, &f)
	require.True(t, f.Flushed)
	require.NotNil(t, f.Tables)
	return f
}

// tables as a text, in the order of the answer.
func (f flushed) text() (out string) {
	for _, x := range f.Tables {
		out += fmt.Sprintf("%s=%d ", x.Table, x.Rows)
	}
	return out
}

// TestFlush: what was accepted before is in Postgres when it answers; what is
// not is named.
func TestFlush(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table a (id int primary key check (id > 0)); create table b (id int primary key); create table c (id int primary key)`,
		options{limits: api.Limits{Wait: 20 * time.Second}})
	name := func(tbl string) string { return s.schema + "." + tbl }
	require.Empty(t, s.do("POST", "/v1/flush", "").flushed(t).Tables)
	s.post("a", array(30, func(i int) string { return row(`{"id":%d}`, i+1) })) // over all partitions
	s.post("b", `[{"id":1},{"id":2}]`)

	p := s.do("POST", "/v1/flush?wait=50ms", "").problem(t, 504, "flush_timeout")
	require.Equal(t, []string{"/" + name("a"), "/" + name("b")}, p.pointers())
	require.Contains(t, p.Errors[0].Detail, "30")
	require.Contains(t, p.Errors[1].Detail, "2")
	require.Contains(t, p.Detail, "50ms")
	p = s.do("POST", s.path("b", "flush")+"?wait=0", "").problem(t, 504, "flush_timeout")
	require.Equal(t, []string{"/" + name("b")}, p.pointers())
	require.Empty(t, s.do("POST", s.path("c", "flush"), "").flushed(t).Tables)

	type result struct {
		a   *answer
		err error
	}
	waiting := make(chan result, 1)
	go func() {
		a, err := s.try(http.MethodPost, "/v1/flush?wait=20s", nil)
		waiting <- result{a, err}
	}()
	s.startFlusher()
	r := <-waiting
	require.NoError(t, r.err)
	require.Contains(t, []string{name("a") + "=30 " + name("b") + "=2 ", name("a") + "=30 ", name("b") + "=2 ", ""}, r.a.flushed(t).text())
	require.Equal(t, 30, s.count("a"))
	require.Equal(t, 2, s.count("b"))

	for i := range 10 { // right after the write, without looking twice
		s.post("b", row(`[{"id":%d},{"id":%d}]`, 10+2*i, 11+2*i))
		s.do("POST", s.path("b", "flush"), "").flushed(t)
		require.Equal(t, 2+2*(i+1), s.count("b"))
	}
	s.post("a", `{"id":-1}`) // Postgres refuses it
	s.do("POST", s.path("a", "flush"), "").flushed(t)
	require.Equal(t, 1, s.count("headpond.dead_letters"))
}

func TestFlushRefuses(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key); create view looks as select 1 as x`)
	s.do("POST", "/v1/nothing/flush", "").problem(t, 404, "table_not_found")
	s.do("POST", s.path("looks", "flush"), "").problem(t, 409, "table_not_usable")
	for _, wait := range []string{"x", "-1s", "5%20s", "1e9"} {
		s.do("POST", s.path("t", "flush")+"?wait="+wait, "").problem(t, 400, "bad_filter")
		s.do("POST", "/v1/flush?wait="+wait, "").problem(t, 400, "bad_filter")
	}
	fresh := newBareServer(t, s)
	r, err := s.client.Post(fresh+"/v1/flush", "", nil)
	require.NoError(t, err)
	require.NoError(t, r.Body.Close())
	require.Equal(t, 503, r.StatusCode)
}

// TestFlushWaitIsCapped by the server, the default too.
func TestFlushWaitIsCapped(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table t (id int primary key)`, options{limits: api.Limits{Wait: 20 * time.Millisecond}})
	s.post("t", `{"id":1}`)
	for _, wait := range []string{"", "?wait=1h"} {
		require.Contains(t, s.do("POST", "/v1/flush"+wait, "").problem(t, 504, "flush_timeout").Detail, "20ms")
	}
}

// TestFlushOutage: without Redis nobody knows what there is to flush; without
// Postgres it is not flushed.
func TestFlushOutage(t *testing.T) {
	t.Parallel()
	r := uptest.Redis(t)
	s := setupWith(t, `create table t (id int primary key)`, options{cuttable: true, redis: r.URL(), buffer: shortTempered})
	s.startFlusher()
	s.wire.cut()
	s.post("t", `{"id":1}`)
	s.do("POST", "/v1/flush?wait=100ms", "").problem(t, 504, "flush_timeout")
	s.wire.mend()
	s.do("POST", "/v1/flush?wait=20s", "").flushed(t)
	require.Equal(t, 1, s.count("t"))
	require.NoError(t, r.Kill())
	s.do("POST", "/v1/flush", "").problem(t, 503, "buffer_unavailable")
}

// TestNamedFlush: tables and keys called like a word of the paths are reached by
// their Location; only a POST to the word itself means something else.
func TestNamedFlush(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table t (id text primary key, n int default 0)`, options{redis: uptest.Redis(t).URL()}) // its name is not its own
	for _, name := range []string{"flush", "_bulk"} {
		s.rename("t", name)
		escaped := fmt.Sprintf("/v1/%%%02X%s", name[0], name[1:])
		for _, key := range []string{"flush", "_bulk", "increment", "_schema"} {
			a := s.do("POST", escaped, row(`{"id":%q}`, key))
			require.Equal(t, 202, a.status, string(a.body))
			require.Equal(t, escaped, a.location(t)[:len(escaped)])
			require.Equal(t, 200, s.get(a.location(t)).status, a.location(t))
			if key != "_schema" {
				require.Equal(t, 200, s.get("/v1/"+name+"/"+key).status)
				require.Equal(t, 202, s.do("PUT", "/v1/"+name+"/"+key, `{"n":1}`).status)
				require.Equal(t, 202, s.do("POST", escaped+"/"+key+"/increment", `{"n":1}`).status)
			}
		}
		require.Equal(t, 200, s.get("/v1/"+name+"?limit=1").status)
		require.Equal(t, 200, s.do(http.MethodHead, "/v1/"+name, "").status)
		s.do("POST", "/v1/flush?wait=0", "").problem(t, 504, "flush_timeout")
		s.do("POST", escaped+"/flush?wait=0", "").problem(t, 504, "flush_timeout")
		require.Equal(t, 400, s.do("POST", escaped+"/flush?wait=x", "").status, "it is a flush, and no row")
	}
}
