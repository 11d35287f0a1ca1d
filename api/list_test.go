package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/api"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// listed gives the value of one column of each row of a list.
func (a *answer) listed(t testing.TB, column string) string {
	t.Helper()
	require.Equal(t, 200, a.status, string(a.body))
	var rows []map[string]json.RawMessage
	a.into(t, &rows)
	out := make([]string, len(rows))
	for i := range rows {
		out[i] = string(rows[i][column])
	}
	return strings.Join(out, " ")
}

// query of a path, from name, value, name, value … .
func query(pairs ...string) string {
	parts := make([]string, 0, len(pairs)/2)
	for i := 0; i < len(pairs); i += 2 {
		parts = append(parts, url.QueryEscape(pairs[i])+"="+url.QueryEscape(pairs[i+1]))
	}
	return "?" + strings.Join(parts, "&")
}

// TestListEqualsGet: a row in a list is what GET of the row prints, for every
// type; and its own value in a filter finds it.
func TestListEqualsGet(t *testing.T) {
	t.Parallel()
	s := setup(t, everyType)
	s.startFlusher()
	rows := append([]map[string]string{everyRow}, odd...)
	for i, r := range rows {
		s.post("every", object(i+1, r))
	}
	s.flushed()
	a := s.get(s.path("every"))
	require.Equal(t, 200, a.status, string(a.body))
	require.Equal(t, "committed", a.header.Get("Headpond-Durability"))
	require.Equal(t, "headpond; fwd=miss", a.header.Get("Cache-Status"))
	require.Equal(t, "application/json", a.header.Get("Content-Type"))
	all := make([]string, len(rows))
	for i := range rows {
		all[i] = strings.TrimSpace(string(s.get(s.path("every", fmt.Sprint(i+1))).body))
	}
	require.Equal(t, "["+strings.Join(all, ",")+"]\n", string(a.body), "in the order of the key")
	one := s.get(s.path("every") + "?select=vc,id,aj&id=eq.1")
	require.Equal(t, "["+strings.TrimSpace(string(s.get(s.path("every", "1")+"?select=vc,id,aj").body))+"]\n", string(one.body))

	for name := range s.get(s.path("every", "1")).fields(t) {
		filter := "eq"
		switch name {
		case "j", "x", "jp", "pt", "pg", "ls", "pa", "bx", "ln", "ci", "abx": // types without equality, or with one of another kind
			filter = "is"
		}
		value := "null"
		if filter == "eq" {
			value = s.text(`select ` + name + `::text from every where id = 1`)
		}
		found := s.get(s.path("every")+query(name, filter+"."+value, "select", "id")).listed(t, "id")
		if filter == "eq" {
			require.Regexp(t, `^1( |$)`, found, name)
		} else {
			require.NotRegexp(t, `^1( |$)`, found, name)
		}
	}
}

func TestListPages(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `
		create table t (id int primary key, kind text, at timestamptz, "limit" int, "Odd, ""n""" text);
		insert into t select i, case i % 3 when 0 then null else 'k' || i % 3 end, '2024-01-01Z'::timestamptz + i / 10 * interval '1 day', i % 7, 'a,' || i
			from generate_series(1, 250) i;
		create table heap (v int, w text); insert into heap values (1, 'x'), (2, null)`, options{limits: api.Limits{List: 200}})
	require.Len(t, strings.Fields(s.get(s.path("t")).listed(t, "id")), 100)
	require.Len(t, strings.Fields(s.get(s.path("t")+"?limit=200").listed(t, "id")), 200)
	s.get(s.path("t")+"?limit=201").problem(t, 400, "bad_filter")
	require.Equal(t, "[]\n", string(s.get(s.path("t")+"?limit=0").body))
	require.Equal(t, "[]\n", string(s.get(s.path("t")+"?offset=9223372036854775807").body))

	seen := make(map[string]bool) // pages over values that are alike
	for page := range 9 {
		ids := strings.Fields(s.get(s.path("t")+fmt.Sprintf("?order=at.desc&limit=30&offset=%d", page*30)).listed(t, "id"))
		for _, id := range ids {
			require.False(t, seen[id], id)
			seen[id] = true
		}
	}
	require.Len(t, seen, 250)

	for q, want := range map[string]string{
		query("at", "gte.2024-01-25T00:00:00+00:00", "id", "lt.244", "order", "id.desc"):                "243 242 241 240",
		query("kind", "is.null", "limit", "2", "order", "kind.nullsfirst"):                              "3 6",
		query("kind", "neq.k1", "limit", "2"):                                                           "2 5",
		query("limit", "3", `"limit"`, "eq.6", "order", `"limit".asc,id.desc`):                          "244 237 230",
		query(`Odd, "n"`, `in.("a,7","a,9",a)`, "order", `"Odd, \"n\"".desc`):                           "9 7",
		query("kind", "like.k*", "kind", "not.ilike.*1", "limit", "1", "offset", "1"):                   "5",
		query("kind", "eq.x'); drop table t; --"):                                                       "",
		query("id", "in.(1,2)", "kind", "eq.k2", "select", "id", "order", "kind.desc.nullslast,at.asc"): "2",
		query("id", "in.("+strings.Repeat("1,", 10_000)+"2)", "select", "id"):                           "1 2",
		query("id", "not.in.("+strings.Repeat("1,", 1000)+"2)", "limit", "2"):                           "3 4",
	} {
		require.Equal(t, want, s.get(s.path("t")+q).listed(t, "id"), q[:min(len(q), 100)])
	}
	require.Equal(t, "1 2", s.get(s.path("heap")).listed(t, "v"), "a table without a key has lists too")
	require.Equal(t, `[{"w":null}]`+"\n", string(s.get(s.path("heap")+"?v=eq.2&select=w").body))

	full := s.get(s.path("t") + "?id=lt.9")
	head := s.do(http.MethodHead, s.path("t")+"?id=lt.9", "")
	require.Equal(t, 200, head.status)
	require.Empty(t, head.body)
	for _, name := range []string{"Content-Length", "Content-Type", "Headpond-Durability", "Cache-Status"} {
		require.NotEmpty(t, full.header.Get(name), name)
		require.Equal(t, full.header.Get(name), head.header.Get(name), name)
	}
	require.Equal(t, 250, s.count("t"))
}

// TestListRefuses: what the parser lets through and Postgres does not. The rest
// is in TestParseQueryRefuses.
func TestListRefuses(t *testing.T) {
	t.Parallel()
	s := setup(t, badTables)
	for q, detail := range map[string]string{
		query("id", "eq.x"):                     `id: Invalid input syntax for type bigint: "x".`,
		query("id", "in.(1,2,)"):                `id: Invalid input syntax for type bigint: "".`,
		query("id", "gt.1", "i2", "lt.40000"):   `i2: Value "40000" is out of range for type smallint.`,
		query("n", "gt.1,5"):                    "n: Invalid input syntax for type numeric",
		query("en", "eq.glad"):                  "en: Invalid input value for enum",
		query("tz", "gt.2024-02-30"):            "tz: Date/time field value out of range",
		query("tz", "gt.2024-01-01T00:00:00 Q"): "tz: Invalid input syntax for type timestamp with time zone",
		query("ip", "eq.10.0.0.300"):            "ip: Invalid input syntax for type inet",
		query("dm", "eq.1.5"):                   "dm: Invalid input syntax for type integer",
		query("tx", "eq.\x00"):                  "tx: Invalid byte sequence",
		query("j", "eq.{}"):                     "Operator does not exist: json = json.",
		query("order", "j"):                     "ordering operator for type json",
		query("cd", "like.1*"):                  "Operator does not exist: cidr ~~ text.",
		query("nope", "eq.1"):                   `There is no column "nope".`,
		query("select", "nope"):                 `no column "nope"`,
		"?id=eq.%zz":                            "cannot be read",
	} {
		a := s.get(s.path("bad") + q)
		require.Equal(t, 400, a.status, q)
		p := a.problem(t, 400, "bad_filter")
		require.Contains(t, p.Detail, detail)
		require.Equal(t, 400, s.do(http.MethodHead, s.path("bad")+q, "").status)
	}
	s.get("/v1/nothing?id=eq.1").problem(t, 404, "table_not_found")
	s.get(s.path("looks")).problem(t, 409, "table_not_usable")
	s.get(s.path("bad"), "Prefer", "handling=strict, nonsense").problem(t, 400, "bad_preference")
}

// TestListFlushesFirst: Prefer: wait makes a list that holds what was written.
func TestListFlushesFirst(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key); create table other (id int primary key)`)
	s.post("t", `[{"id":1},{"id":2},{"id":3},{"id":4},{"id":5}]`)
	a := s.get(s.path("t"))
	require.Empty(t, a.listed(t, "id"), "lists are of Postgres")
	require.Empty(t, a.header.Get("Preference-Applied"))
	a = s.get(s.path("t"), "Prefer", "wait=0.05")
	require.Empty(t, a.listed(t, "id"))
	require.Empty(t, a.header.Get("Preference-Applied"), "the time ran out")
	require.Equal(t, "wait=0", s.get(s.path("other"), "Prefer", "wait=0, return=minimal").header.Get("Preference-Applied"))

	s.startFlusher()
	for i := range 5 {
		s.post("t", row(`[{"id":%d},{"id":%d},{"id":%d}]`, 10+3*i, 11+3*i, 12+3*i))
		a = s.get(s.path("t")+"?limit=1000", "Prefer", "wait=20")
		require.Len(t, strings.Fields(a.listed(t, "id")), 5+3*(i+1))
		require.Equal(t, "wait=20", a.header.Get("Preference-Applied"))
	}
}

// TestListTooLarge: rows of any size do not fit into memory.
func TestListTooLarge(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table t (id int primary key, v text);
		insert into t select i, repeat('x', case when i < 10 then 1000 else 100000 end) from generate_series(1, 60) i`,
		options{limits: api.Limits{Body: 1000}})
	before := s.pool.Stat().NewConnsCount()
	const lists, idle = 12, 6 // at most so many connections were there before
	for range lists {
		p := s.get(s.path("t")).problem(t, 400, "bad_filter")
		require.Contains(t, p.Detail, "8000 bytes")
	}
	require.GreaterOrEqual(t, s.pool.Stat().NewConnsCount()-before, int64(lists-idle), "the rest is not read")
	require.Equal(t, "1 2 3 4 5 6 7", s.get(s.path("t")+"?limit=7").listed(t, "id"))
	require.Len(t, strings.Fields(s.get(s.path("t")+"?select=id").listed(t, "id")), 60)
}

// TestListOutage: without Postgres there is no list; Redis is not needed.
func TestListOutage(t *testing.T) {
	t.Parallel()
	r := uptest.Redis(t)
	s := setupWith(t, `create table t (id int primary key); insert into t values (1)`, options{cuttable: true, redis: r.URL(), buffer: shortTempered})
	require.Equal(t, "1", s.get(s.path("t")).listed(t, "id"))
	s.wire.cut()
	for _, prefer := range []string{"-", "wait=1"} {
		a := s.get(s.path("t"), "Prefer", prefer)
		a.problem(t, 503, "store_unavailable")
		require.NotEmpty(t, a.header.Get("Retry-After"))
	}
	s.get(s.path("t")+"?id=eq.1&nope=eq.1").problem(t, 400, "bad_filter")
	s.wire.mend()
	require.Eventually(t, func() bool { return s.get(s.path("t")).status == 200 }, 10*time.Second, 10*time.Millisecond)
	require.NoError(t, r.Kill())
	a := s.get(s.path("t"), "Prefer", "wait=1")
	require.Equal(t, "1", a.listed(t, "id"))
	require.Empty(t, a.header.Get("Preference-Applied"))
}
