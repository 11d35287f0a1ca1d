package api_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

const changeDDL = `create table c (id int primary key, name text not null default 'none', n bigint not null default 0,
	amount numeric(12,2), f float8, double bigint generated always as (n * 2) stored);
	create table pair (a int, b text, n int not null default 7, primary key (a, b));
	create table nokey (a int);
	create table must (id int primary key, must text not null, n int not null);`

// row that a GET must give.
func (s *stack) row(want, tbl, key string) {
	s.t.Helper()
	a := s.get(s.path(tbl, key))
	require.Equal(s.t, http.StatusOK, a.status, string(a.body))
	require.JSONEq(s.t, want, string(a.body))
}

func (s *stack) gone(tbl, key string) {
	s.t.Helper()
	require.Equal(s.t, http.StatusNotFound, s.get(s.path(tbl, key)).status)
}

// TestChange: each kind of write on a key, while the row is in the buffer, and
// while it is in Postgres only.
func TestChange(t *testing.T) {
	for _, where := range []string{"buffer", "postgres"} {
		t.Run(where, func(t *testing.T) {
			s := setup(t, changeDDL)
			if where == "postgres" {
				s.exec(`insert into c (id, name, n, amount) values (1, 'one', 5, 1.50), (2, 'two', 0, null), (3, 'three', 1, 1)`)
			} else {
				for _, row := range []string{`{"id":1,"name":"one","n":5,"amount":1.50}`, `{"id":2,"name":"two"}`, `{"id":3,"name":"three","n":1,"amount":1}`} {
					s.post("c", row)
				}
			}
			patched := s.do(http.MethodPatch, s.path("c", "1"), `{"name":"uno"}`, "Prefer", "return=representation").accept(t, 202)
			require.JSONEq(t, `{"id":1,"name":"uno","n":5,"amount":1.50,"f":null,"double":10}`, string(patched.Row))
			s.row(`{"id":1,"name":"uno","n":5,"amount":1.50,"f":null,"double":10}`, "c", "1")

			added := s.do(http.MethodPost, s.path("c", "1", "increment"), `{"n":9007199254740993,"amount":-2.5,"f":0.1}`).accept(t, 202)
			require.JSONEq(t, `{"id":1,"name":"uno","n":9007199254740998,"amount":-1.00,"f":0.1,"double":18014398509481996}`, string(added.Row))
			added = s.do(http.MethodPost, s.path("c", "2", "increment"), `{"amount":"0.01"}`).accept(t, 202)
			require.Contains(t, string(added.Row), `"amount":0.01`)
			added = s.do(http.MethodPost, s.path("c", "4", "increment"), `{"n":3}`).accept(t, 202)
			require.JSONEq(t, `{"id":4,"name":"none","n":3,"amount":null,"f":null,"double":6}`, string(added.Row))

			s.do(http.MethodPut, s.path("c", "2"), `{"n":9}`).accept(t, 202)
			s.row(`{"id":2,"name":"none","n":9,"amount":null,"f":null,"double":18}`, "c", "2")
			s.do(http.MethodDelete, s.path("c", "3"), ``).accept(t, 202)
			s.gone("c", "3")
			for _, method := range []string{http.MethodPatch, http.MethodDelete} {
				require.Equal(t, 404, s.do(method, s.path("c", "3"), `{}`).status)
				require.Equal(t, 404, s.do(method, s.path("c", "99"), `{}`).status)
			}
			s.post("c", `{"id":3,"name":"again"}`) // a deleted key is free
			require.Equal(t, 409, s.do(http.MethodPost, s.path("c"), `{"id":3}`).status)

			s.startFlusher()
			s.flushed()
			require.Equal(t, `[{"id":1,"name":"uno","n":9007199254740998,"amount":-1.00,"f":0.1,"double":18014398509481996},`+
				`{"id":2,"name":"none","n":9,"amount":null,"f":null,"double":18},{"id":3,"name":"again","n":0,"amount":null,"f":null,"double":0},`+
				`{"id":4,"name":"none","n":3,"amount":null,"f":null,"double":6}]`,
				strings.ReplaceAll(s.text(`select json_agg(c order by id)::text from c`), "}, \n {", "},{"))
			require.Zero(t, s.count("headpond.dead_letters"))
		})
	}
}

func TestChangeRefused(t *testing.T) {
	s := setup(t, changeDDL)
	s.post("c", `{"id":1}`)
	for _, c := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"PUT", "c/x", `{}`, 422, "invalid_key"},
		{"PUT", "c/1", `[]`, 400, "empty_batch"},
		{"PUT", "c/1", `[{}]`, 400, "invalid_json_shape"},
		{"PUT", "c/1", `{"id":2}`, 422, "key_mismatch"},
		{"PUT", "c/1", `{"double":2}`, 422, "read_only_column"},
		{"PUT", "c/1", `{"nope":2}`, 422, "unknown_column"},
		{"PUT", "must/1", `{"n":2}`, 422, "required"},
		{"PATCH", "c/1", `{"name":null}`, 422, "null_not_allowed"},
		{"PATCH", "c/1", `{"id":2}`, 422, "key_mismatch"},
		{"PATCH", "c/1", `{"n":"x"}`, 422, "type_mismatch"},
		{"PATCH", "nokey/1", `{}`, 409, "no_primary_key"},
		{"POST", "c/1/increment", `{"name":1}`, 422, "type_mismatch"},
		{"POST", "c/1/increment", `{"name":"1"}`, 422, "not_numeric"},
		{"POST", "c/1/increment", `{"id":1}`, 422, "not_numeric"},
		{"POST", "c/1/increment", `{"n":null}`, 422, "null_not_allowed"},
		{"POST", "c/1/increment", `{"amount":null}`, 422, "type_mismatch"},
		{"POST", "c/1/increment", `{"n":9223372036854775807,"amount":1}`, 202, ""},
		{"POST", "c/1/increment", `{"n":1}`, 422, "out_of_range"},
		{"POST", "c/1/increment", `{"amount":9999999999}`, 422, "out_of_range"},
		{"POST", "must/1/increment", `{"n":1}`, 404, "row_not_found"},
		{"DELETE", "pair/1", ``, 400, "bad_key"},
	} {
		a := s.do(c.method, "/v1/"+s.schema+"."+c.path, c.body)
		require.Equal(t, c.status, a.status, "%s %s %s: %s", c.method, c.path, c.body, a.body)
		if c.code != "" {
			require.Contains(t, string(a.body), `"code":"`+c.code+`"`, "%s %s %s", c.method, c.path, c.body)
		}
	}
}

func TestChangeOnCondition(t *testing.T) {
	s := setup(t, changeDDL)
	put := func(body string, headers ...string) int {
		return s.do(http.MethodPut, s.path("c", "1"), body, headers...).status
	}
	require.Equal(t, 412, put(`{}`, "If-Match", "*"))
	require.Equal(t, 202, put(`{"n":1}`, "If-None-Match", "*"))
	require.Equal(t, 412, put(`{"n":2}`, "If-None-Match", "*"))
	tag := s.get(s.path("c", "1")).header.Get("ETag")
	require.Equal(t, 412, put(`{"n":2}`, "If-Match", `"other"`))
	require.Equal(t, 202, put(`{"n":2}`, "If-Match", tag))
	require.Equal(t, 412, put(`{"n":3}`, "If-Match", tag))
	now := s.get(s.path("c", "1")).header.Get("ETag")
	require.Equal(t, 412, s.do(http.MethodDelete, s.path("c", "1"), ``, "If-Match", tag).status)
	require.Equal(t, 412, s.do(http.MethodPost, s.path("c", "1", "increment"), `{"n":1}`, "If-Match", tag).status)
	require.Equal(t, 202, s.do(http.MethodDelete, s.path("c", "1"), ``, "If-Match", now).status)
	require.Equal(t, 404, s.do(http.MethodDelete, s.path("c", "1"), ``, "If-Match", now).status)
}

func TestResolution(t *testing.T) {
	s := setup(t, changeDDL)
	s.exec(`insert into c (id, name, n) values (1, 'one', 5)`)
	s.post("c", `{"id":1,"n":6}`, "Prefer", "resolution=merge-duplicates")
	s.row(`{"id":1,"name":"one","n":6,"amount":null,"f":null,"double":12}`, "c", "1")
	s.post("c", `{"id":1,"n":7}`, "Prefer", "resolution=ignore-duplicates")
	s.post("c", `{"id":2,"n":7}`, "Prefer", "resolution=ignore-duplicates")
	s.post("c", `[{"id":2,"n":8},{"id":3,"name":"three"}]`, "Prefer", "resolution=merge-duplicates")
	s.startFlusher()
	s.flushed()
	require.Equal(t, "1:one:6 2:none:8 3:three:0", s.text(`select string_agg(id || ':' || name || ':' || n, ' ' order by id) from c`))
}

// TestBulk: operations over tables, in order per key.
func TestBulk(t *testing.T) {
	s := setup(t, changeDDL)
	table := func(name string) string { return s.schema + "." + name }
	lines := strings.Join([]string{
		`{"op":"insert","table":"` + table("c") + `","row":{"id":1,"name":"one"}}`,
		`{"op":"patch","table":"` + table("c") + `","key":"1","row":{"name":"uno"}}`,
		`{"op":"increment","table":"` + table("c") + `","key":1,"row":{"n":5}}`,
		`{"op":"put","table":"` + table("pair") + `","key":"1,b%2Cc","row":{}}`,
		`{"op":"delete","table":"` + table("c") + `","key":"77"}`,
		`{"op":"insert","table":"` + table("nokey") + `","row":{"a":1}}`,
		`{"op":"insert","table":"` + table("c") + `","row":{"id":"x"}}`,
		`{"op":"delete","table":"` + table("c") + `","key":"1"}`,
		`{"op":"put","table":"` + table("c") + `","row":{"id":1,"n":3}}`,
		`{"op":"what","table":"` + table("c") + `"}`,
		`not json`,
	}, "\n")
	got := s.do(http.MethodPost, "/v1/_bulk", lines, "Content-Type", "application/x-ndjson").accept(t, 207)
	require.Equal(t, 7, got.Accepted, "%+v", got)
	require.Equal(t, 4, got.Rejected)
	codes := make([]string, 0, 4)
	for _, e := range got.Errors {
		codes = append(codes, fmt.Sprint(*e.Index, e.Code, e.Pointer))
	}
	require.Equal(t, []string{"4row_not_found/4", "6type_mismatch/6/row/id", "9invalid_json_shape/9/op", "10invalid_json/10"}, codes)
	s.row(`{"id":1,"name":"none","n":3,"amount":null,"f":null,"double":6}`, "c", "1")
	s.row(`{"a":1,"b":"b,c","n":7}`, "pair", "1,b%2Cc")
	strict := s.do(http.MethodPost, "/v1/_bulk", `{"op":"put","table":"`+table("c")+`","key":"8","row":{}}
{"op":"patch","table":"`+table("c")+`","key":"9","row":{}}`, "Content-Type", "application/x-ndjson", "Prefer", "handling=strict")
	require.Equal(t, 422, strict.status, string(strict.body))
	s.gone("c", "8")
	s.startFlusher()
	s.flushed()
	require.Equal(t, "1:3", s.text(`select string_agg(id || ':' || n, ' ' order by id) from c`))
	require.Equal(t, 1, s.count("nokey"))
	require.Zero(t, s.count("headpond.dead_letters"))
}

// TestHotCounter: many connections add to one row; the sum is exact, and they
// share appends.
func TestHotCounter(t *testing.T) {
	s := setup(t, changeDDL)
	s.startFlusher()
	var wg sync.WaitGroup
	const clients, each = 32, 100
	for range clients {
		wg.Go(func() {
			for range each {
				a, err := s.try(http.MethodPost, s.path("c", "1", "increment"), strings.NewReader(`{"n":1,"amount":0.01}`))
				if err != nil || a.status != 202 {
					t.Errorf("%v %v", err, a)
				}
			}
		})
	}
	wg.Wait()
	s.flushed()
	require.Equal(t, "3200 32.00", s.text(`select n || ' ' || amount from c`))
	s.row(`{"id":1,"name":"none","n":3200,"amount":32.00,"f":null,"double":6400}`, "c", "1")
	require.Less(t, s.buf.Counters().Calls.Load(), int64(clients*each/2))
}
