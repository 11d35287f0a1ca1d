package api_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

const directDDL = changeDDL + `
	create table parent (id int primary key);
	create table d (id bigint generated always as identity primary key, name text not null default 'none', n int not null default 0 check (n < 100),
		parent int references parent, stamp text, double int generated always as (n * 2) stored);
	create function stamped() returns trigger language plpgsql as $$ begin new.stamp := 'by trigger'; return new; end $$;
	create trigger stamp before insert or update on d for each row execute function stamped();
	insert into parent values (1);`

var directly = []string{"write-through", "cache-aside"}

// cached is where the row of a key is read from.
func (s *stack) cached(tbl, key string) bool {
	s.t.Helper()
	a := s.get(s.path(tbl, key), "Cache-Control", "only-if-cached")
	return a.status == http.StatusOK
}

// TestDirect: each kind of write is in Postgres when it is answered, and its row
// in Redis, or not.
func TestDirect(t *testing.T) {
	for _, strategy := range directly {
		t.Run(strategy, func(t *testing.T) {
			s := setupWith(t, directDDL, options{strategy: strategy})
			now := func(want string) {
				t.Helper()
				require.Equal(t, want, s.text(`select coalesce(json_agg(json_build_array(id, name, n) order by id)::text, '[]') from d`))
			}
			kept := func(key string) {
				t.Helper()
				require.Equal(t, strategy == "write-through", s.cached("d", key))
				row := s.text(`select to_jsonb(d)::text from d where id = ` + key)
				s.row(row, "d", key) // loads it, if it is not there
				require.True(t, s.cached("d", key))
				s.row(row, "d", key)
			}
			a := s.do(http.MethodPost, s.path("d"), `{"name":"one"}`)
			a.accept(t, 201)
			require.Equal(t, "committed", a.header.Get("Headpond-Durability"))
			require.Empty(t, a.header.Get("Headpond-Receipt"))
			require.JSONEq(t, `{"key":"1","durability":"committed"}`, string(a.body))
			now(`[[1, "one", 0]]`)
			kept("1")
			s.do(http.MethodPatch, s.path("d", "1"), `{"n":5}`).accept(t, 200)
			now(`[[1, "one", 5]]`)
			kept("1")
			added := s.do(http.MethodPost, s.path("d", "1", "increment"), `{"n":2}`).accept(t, 200)
			require.Contains(t, string(added.Row), `"n":7`)
			kept("1")
			s.do(http.MethodPut, s.path("d", "1"), `{"name":"uno"}`).accept(t, 200)
			now(`[[1, "uno", 0]]`)
			kept("1")
			s.do(http.MethodDelete, s.path("d", "1"), ``).accept(t, 200)
			now(`[]`)
			s.gone("d", "1")
			for _, method := range []string{http.MethodPatch, http.MethodDelete} {
				require.Equal(t, 404, s.do(method, s.path("d", "1"), `{}`).status)
			}
			s.do(http.MethodPost, s.path("c", "9", "increment"), `{"n":3}`).accept(t, 201)
			s.row(`{"id":9,"name":"none","n":3,"amount":null,"f":null,"double":6}`, "c", "9")
			require.Equal(t, 409, s.do(http.MethodPost, s.path("c"), `{"id":9}`).status)
			s.do(http.MethodPost, s.path("c"), `{"id":9,"name":"nine"}`, "Prefer", "resolution=merge-duplicates").accept(t, 200)
			s.do(http.MethodPost, s.path("c"), `{"id":9,"name":"no"}`, "Prefer", "resolution=ignore-duplicates").accept(t, 200)
			s.row(`{"id":9,"name":"nine","n":3,"amount":null,"f":null,"double":6}`, "c", "9")
			tag := s.get(s.path("c", "9")).header.Get("ETag")
			s.do(http.MethodPut, s.path("c", "9"), `{"n":4}`, "If-Match", tag).accept(t, 200)
			require.Equal(t, 412, s.do(http.MethodPut, s.path("c", "9"), `{"n":4}`, "If-Match", tag).status)
			require.Equal(t, 412, s.do(http.MethodPut, s.path("c", "9"), `{"n":4}`, "If-None-Match", "*").status)
			s.do(http.MethodPost, s.path("nokey"), `[{"a":1},{"a":2}]`).accept(t, 200)
			require.Equal(t, 2, s.count("nokey"))
			s.do(http.MethodPost, s.path("nokey"), `{"a":1}`).accept(t, 201)
		})
	}
}

// TestDirectRefused: what Postgres refuses is an answer, and leaves nothing
// behind in Redis.
func TestDirectRefused(t *testing.T) {
	for _, strategy := range directly {
		t.Run(strategy, func(t *testing.T) {
			s := setupWith(t, directDDL, options{strategy: strategy})
			for _, body := range []string{`{"n":100}`, `{"parent":2}`} {
				a := s.do(http.MethodPost, s.path("d"), body)
				require.Equal(t, 422, a.status, string(a.body))
				require.Contains(t, string(a.body), `"code":"refused"`)
				require.Contains(t, string(a.body), `"applied":"no"`)
			}
			s.do(http.MethodPost, s.path("c"), `{"id":1}`).accept(t, 201)
			require.Equal(t, 409, s.do(http.MethodPost, s.path("c"), `{"id":1}`).status)
			s.do(http.MethodPost, s.path("d"), `{"parent":1,"n":99}`).accept(t, 201)
			id := s.text("select max(id)::text from d")
			before := s.text(`select to_jsonb(d)::text from d where id = ` + id)
			require.Equal(t, 422, s.do(http.MethodPost, s.path("d", id, "increment"), `{"n":1}`).status)
			require.Equal(t, 422, s.do(http.MethodPatch, s.path("d", id), `{"n":100}`).status)
			require.Equal(t, 422, s.do(http.MethodPut, s.path("d", id), `{"n":100}`).status)
			s.row(before, "d", id)

			// A list: strict is all or nothing, lenient takes the good ones.
			list := `[{"name":"a"},{"n":100},{"name":"b"},{"parent":7}]`
			rows := s.count("d")
			a := s.do(http.MethodPost, s.path("d"), list)
			require.Equal(t, 422, a.status)
			require.Contains(t, string(a.body), `"pointer":"/1"`)
			require.Equal(t, rows, s.count("d"))
			a = s.do(http.MethodPost, s.path("d"), list, "Prefer", "handling=lenient")
			require.Equal(t, 207, a.status, string(a.body))
			require.Contains(t, string(a.body), `"accepted":2,"rejected":2`)
			require.Equal(t, rows+2, s.count("d"))
		})
	}
}

// TestDirectBulk: operations on the same key go on from each other, and what is
// refused is as if it had not been sent.
func TestDirectBulk(t *testing.T) {
	for _, strategy := range directly {
		t.Run(strategy, func(t *testing.T) {
			s := setupWith(t, directDDL, options{strategy: strategy})
			line := func(op, tbl, key, row string) string {
				return fmt.Sprintf(`{"op":%q,"table":"%s.%s","key":%q,"row":%s}`, op, s.schema, tbl, key, row) + "\n"
			}
			body := line("insert", "c", "1", `{"name":"one"}`) + line("increment", "c", "1", `{"n":5}`) + line("insert", "c", "1", `{"name":"two"}`) +
				line("patch", "c", "1", `{"amount":1}`) + line("put", "c", "2", `{"name":"two"}`) + line("patch", "c", "3", `{}`) +
				line("insert", "must", "1", `{"must":"x","n":1}`)
			a := s.do(http.MethodPost, "/v1/_bulk", body, "Content-Type", "application/x-ndjson", "Prefer", "handling=strict")
			require.Equal(t, 422, a.status, string(a.body))
			require.Zero(t, s.count("c")+s.count("must"))
			a = s.do(http.MethodPost, "/v1/_bulk", body, "Content-Type", "application/x-ndjson")
			require.Equal(t, 207, a.status, string(a.body))
			require.Contains(t, string(a.body), `"accepted":5,"rejected":2`)
			require.Equal(t, "committed", a.header.Get("Headpond-Durability"))
			s.row(`{"id":1,"name":"one","n":5,"amount":1.00,"f":null,"double":10}`, "c", "1")
			require.Equal(t, `[[1,"one",5,1.00],[2,"two",0,null]]`, s.text(`select replace(json_agg(json_build_array(id,name,n,amount) order by id)::text, ', ', ',') from c`))
			require.Equal(t, 1, s.count("must"))
		})
	}
}
