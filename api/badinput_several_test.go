package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/api"
)

// Rows of the matrix that one request does not show: see badInput.

// TestOnlyPostgresKnows: what only Postgres can refuse is accepted, and becomes
// a dead letter, which the receipt, Prefer: wait and a table tell.
func TestOnlyPostgresKnows(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table parent (id int primary key);
		create table t (id int primary key, v int check (v > 0), u int unique, p int references parent,
			a int, b int, check (a < b), span int4range, exclude using gist (span with &&), q int generated always as (10 / v) stored);
		insert into t (id, u, span) values (100, 7, '[1,5)')`)
	refusedWith := make(map[string]string) // by receipt
	for name, c := range map[string][2]string{
		"check": {`{"id":1,"v":-1}`, "23514"}, "check of the table": {`{"id":2,"a":2,"b":1}`, "23514"}, "unique": {`{"id":3,"u":7}`, "23505"},
		"foreign key": {`{"id":4,"p":404}`, "23503"}, "exclusion": {`{"id":5,"span":"[4,6)"}`, "23P01"}, "primary key": {`{"id":100}`, "23505"},
	} {
		receipt := s.post("t", c[0]).accept(t, 202).Receipt
		require.Equal(t, "pending", s.receipt(receipt, "").State, name)
		refusedWith[receipt] = c[1]
	}
	waiting := make(chan *answer, 1)
	go func() {
		a, _ := s.try("POST", s.path("t"), strings.NewReader(`{"id":6,"v":-1}`), "Prefer", "wait=30, return=minimal")
		waiting <- a
	}()
	require.Eventually(t, func() bool { return s.accepted("t") == 7 }, 10*time.Second, time.Millisecond)
	s.startFlusher()
	a := <-waiting
	a.problem(t, 422, "dead_lettered")
	require.Equal(t, "wait=30", a.header.Get("Preference-Applied"), "it was waited for, and what came back is not minimal")
	s.flushed()
	for receipt, sqlstate := range refusedWith {
		got := s.receipt(receipt, "")
		require.Equal(t, "dead-lettered "+sqlstate, got.State+" "+got.SQLState)
	}
	require.Equal(t, 1, s.count("t"))
	require.Equal(t, 7, s.count("headpond.dead_letters"))
	s.gone("t", "1")
}

// TestNotComputable: a row for which Postgres cannot compute a generated column
// is none that it will ever hold. Before it is accepted that is a bad row; once
// it is accepted a GET says so, shows the rest when asked, and no answer makes
// the column up.
func TestNotComputable(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key, v int, ok int generated always as (id + 1) stored, q int generated always as (10 / v) stored,
		cut varchar(3) generated always as ((v * 100)::text || 'x') stored)`)
	representation := []string{"Prefer", "return=representation"}
	p := s.do("POST", s.path("t"), `{"id":1,"v":0}`, representation...).problem(t, 422, "invalid_value")
	require.Equal(t, []string{"/q"}, p.pointers())
	p = s.do("POST", s.path("t"), `[{"id":1,"v":null},{"id":2,"v":0}]`, representation...).problem(t, 422, "invalid_rows")
	require.Equal(t, []string{"/1/q"}, p.pointers())
	require.Zero(t, s.accepted("t"))
	out := s.do("POST", s.path("t"), `[{"id":1,"v":null},{"id":2,"v":0}]`, "Prefer", "return=representation, handling=lenient").accept(t, 207)
	require.JSONEq(t, `{"id":1,"v":null,"ok":2,"q":null,"cut":null}`, string(out.Rows[0]))

	s.post("t", `{"id":3,"v":0}`)
	p = s.get(s.path("t", "3")).problem(t, 422, "invalid_value")
	require.Equal(t, []string{"/q"}, p.pointers())
	require.Contains(t, p.Detail, "Division by zero")
	require.Contains(t, p.Hint, "dead letter")
	require.JSONEq(t, `{"v":0,"id":3}`, string(s.get(s.path("t", "3")+"?select=v,id").body))
	s.get(s.path("t", "3")+"?select=q").problem(t, 422, "invalid_value")
	s.post("t", `{"id":4,"v":9}`)
	p = s.get(s.path("t", "4")).problem(t, 422, "too_long")
	require.Equal(t, []string{"/cut"}, p.pointers(), "it is not cut, as Postgres does not")

	a := s.do(http.MethodPut, s.path("t", "5"), `{"v":0}`, representation...)
	require.Empty(t, a.accept(t, 202).Row)
	require.Empty(t, a.header.Get("Preference-Applied"))
	a = s.do("POST", "/v1/_bulk", `{"op":"put","table":"`+s.schema+`.t","key":6,"row":{"v":0}}`, "Content-Type", "application/x-ndjson", "Prefer", "return=representation, handling=lenient")
	require.Empty(t, a.accept(t, 202).Rows)
	require.Equal(t, "handling=lenient", a.header.Get("Preference-Applied"))
	s.startFlusher()
	s.flushed()
	require.Equal(t, "1", s.text(`select string_agg(id::text, ' ') from t`))
	s.gone("t", "3")
}

// TestOneKeyTwice: operations on one key in one request are made in their
// order, and each is a write of its own.
func TestOneKeyTwice(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key, v int)`)
	op := `{"op":"put","table":"` + s.schema + `.t","key":1,"row":{"v":%d}}`
	out := s.do("POST", "/v1/_bulk", lines(3, func(i int) string { return row(op, i) }), ndjson...).accept(t, 202)
	require.Equal(t, 3, out.Accepted)
	require.EqualValues(t, 3, s.accepted("t"))
	s.row(`{"id":1,"v":2}`, "t", "1")
	s.post("t", `[{"id":1,"v":3},{"id":2,"v":1},{"id":1,"v":4}]`, "Prefer", "resolution=merge-duplicates")
	require.EqualValues(t, 6, s.accepted("t"))
	out = s.do("POST", s.path("t"), "{\"id\":3,\"v\":1}\n{\"id\":3,\"v\":2}\n", ndjson...).accept(t, 207)
	require.Equal(t, "/1/id row_exists", out.Errors[0].Pointer+" "+out.Errors[0].Code, "an insert is no replacement")
	s.startFlusher()
	s.flushed()
	require.Equal(t, "1:4 2:1 3:1", s.text(`select string_agg(id || ':' || v, ' ' order by id) from t`))
	require.Zero(t, s.count("headpond.dead_letters"))
}

// TestIdempotencyKeyReused: the payload, the path and the method belong to a key.
func TestIdempotencyKeyReused(t *testing.T) {
	t.Parallel()
	s := setup(t, changeDDL)
	key := []string{"Idempotency-Key", "once"}
	s.post("c", `{"id":1,"n":1}`, key...)
	s.do(http.MethodPut, s.path("c", "2"), `{"n":1}`, "Idempotency-Key", "put").accept(t, 202)
	for _, c := range []struct{ method, path, body, key string }{
		{"POST", s.path("c"), `{"id":1,"n":2}`, "once"}, {"POST", s.path("c"), ` {"id":1,"n":1}`, "once"}, {"POST", s.path("c"), `[{"id":1,"n":1}]`, "once"},
		{"PATCH", s.path("c", "2"), `{"n":1}`, "put"}, {"PUT", s.path("c", "2"), `{"n":2}`, "put"},
	} {
		p := s.do(c.method, c.path, c.body, "Idempotency-Key", c.key).problem(t, 422, "idempotency_key_reused")
		require.Equal(t, "no", p.Applied)
		require.NotEmpty(t, p.Hint)
		require.EqualValues(t, 2, s.accepted("c"))
	}
}

// TestSameIdempotencyKeyAtOnce: there is no moment in which a repeat finds the
// first one half done: all get its answer.
func TestSameIdempotencyKeyAtOnce(t *testing.T) {
	t.Parallel()
	s := setup(t, changeDDL+`create table u (id uuid primary key, n int)`)
	for i, c := range []struct{ path, body string }{
		{s.path("u"), `{"n":1}`}, {s.path("c", "1", "increment"), `{"n":1}`}, {s.path("u"), `[{"n":1},{"n":2}]`},
	} {
		var wg sync.WaitGroup
		answers := make([]*answer, 16)
		for n := range answers {
			wg.Go(func() {
				answers[n], _ = s.try("POST", c.path, strings.NewReader(c.body), "Idempotency-Key", fmt.Sprint("at-once-", i))
			})
		}
		wg.Wait()
		firsts := 0
		for _, a := range answers {
			require.NotNil(t, a)
			require.Equal(t, 202, a.status, string(a.body))
			require.Equal(t, string(answers[0].body), string(a.body))
			if a.header.Get("Idempotency-Replayed") == "" {
				firsts++
			}
		}
		require.Equal(t, 1, firsts, c.path)
	}
	require.EqualValues(t, 1, s.accepted("c"))
	require.EqualValues(t, 3, s.accepted("u"))
}

// TestPatchAndDeleteAtOnce: one of them is first, and a PATCH that comes after
// the DELETE finds no row: it does not make one.
func TestPatchAndDeleteAtOnce(t *testing.T) {
	t.Parallel()
	s := setup(t, changeDDL)
	for i := range 50 {
		key := fmt.Sprint(i)
		s.post("c", `{"id":`+key+`}`)
		var patched *answer
		var wg sync.WaitGroup
		wg.Go(func() { patched, _ = s.try(http.MethodPatch, s.path("c", key), strings.NewReader(`{"n":1}`)) })
		wg.Go(func() { _, _ = s.try(http.MethodDelete, s.path("c", key), strings.NewReader("")) })
		wg.Wait()
		require.NotNil(t, patched)
		if patched.status != 202 {
			patched.problem(t, 404, "row_not_found")
		}
		s.gone("c", key)
	}
	s.startFlusher()
	s.flushed()
	require.Zero(t, s.count("c"))
}

// TestCrossSite: what a page of another site may send without being asked
// (WHATWG Fetch, "CORS-safelisted") writes nothing, and what it may ask for is
// not allowed.
func TestCrossSite(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key)`)
	from := []string{"Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "no-cors"}
	for _, kind := range []string{"-", "text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"} {
		for _, path := range []string{s.path("t"), "/v1/_bulk", s.path("t", "1", "increment")} {
			a := s.do("POST", path, `{"id":1}`, append(slices.Clone(from), "Content-Type", kind)...)
			a.problem(t, 415, "unsupported_media_type")
			require.Empty(t, a.header.Get("Access-Control-Allow-Origin"))
		}
	}
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
		a := s.do(http.MethodOptions, s.path("t", "1"), "", "Origin", "https://evil.example", "Access-Control-Request-Method", method, "Access-Control-Request-Headers", "content-type")
		for name := range a.header {
			require.False(t, strings.HasPrefix(name, "Access-Control-"), name)
		}
	}
	require.Zero(t, s.accepted("t"))
}

// TestMarkupIsText: markup goes in and out as it is, in a form that no browser
// takes for a page.
func TestMarkupIsText(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id text primary key, v text)`)
	const markup = `<img src=x onerror="alert(1)">&amp;`
	body, err := json.Marshal(map[string]string{"id": markup, "v": markup})
	require.NoError(t, err)
	a := s.post("t", string(body), "Prefer", "return=representation")
	require.NotContains(t, a.location(t), "<")
	for _, a := range []*answer{a, s.get(a.location(t))} {
		require.Equal(t, "application/json", a.header.Get("Content-Type"))
		require.NotContains(t, a.header.Get("Location"), "<")
	}
	var got map[string]string
	s.get(a.location(t)).into(t, &got)
	require.Equal(t, map[string]string{"id": markup, "v": markup}, got)
	require.Equal(t, "application/json", s.get("/openapi.json").header.Get("Content-Type"))
}

// TestNotBuiltYet: what the matrix asks of parts that are not there. It fails
// when one is built: then its rows need cases.
func TestNotBuiltYet(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"unauthorized", "forbidden", "durability_not_reached", "in_progress", "idempotency_key_required"} {
		require.Equal(t, http.StatusUnprocessableEntity, api.StatusOfCode(code), "%s has a status: it is built", code)
	}
	s := setup(t, `create table t (id int primary key)`)
	// Credentials are not looked at, so nobody is kept out: README says so.
	for i, credentials := range []string{"", "Bearer none", "Basic eDp5", "Bearer eyJhbGciOiJub25lIn0.e30."} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+s.path("t"), strings.NewReader(row(`{"id":%d}`, i)))
		require.NoError(t, err)
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", credentials)
		answered, err := s.client.Do(r)
		require.NoError(t, err)
		require.NoError(t, answered.Body.Close())
		require.Equal(t, http.StatusAccepted, answered.StatusCode)
		require.Empty(t, answered.Header.Get("WWW-Authenticate"))
	}
	require.Equal(t, "fsync", s.post("t", `{"id":9}`).header.Get("Headpond-Durability"), "no level for replicas")
}
