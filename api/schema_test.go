package api_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/api"
)

// TestAlterTable while rows wait: renamed columns keep their values, even when
// their names were swapped, values of dropped ones go with them, new ones take
// their defaults; and before the catalog is read again nothing is written.
func TestAlterTable(t *testing.T) {
	s := setup(t, `create table a (id int primary key, x int, y int, gone text, kept text)`)
	for _, row := range []string{`{"id":1,"x":10,"y":20,"gone":"g","kept":"k"}`, `{"id":2,"x":11,"y":21}`, `{"id":3,"x":12,"y":22}`} {
		s.post("a", row)
	}
	s.do(http.MethodPatch, s.path("a", "2"), `{"x":100,"gone":"h"}`).accept(t, 202)
	s.do(http.MethodPost, s.path("a", "3", "increment"), `{"y":5}`).accept(t, 202)
	s.exec(`alter table a rename x to z; alter table a rename y to x; alter table a rename z to y;
		alter table a drop gone; alter table a add extra int default 5; alter table a add gone int`)
	stop := s.startFlusher()
	time.Sleep(300 * time.Millisecond)
	require.Zero(t, s.count("a"), "nothing is written by a catalog of before")
	stop()
	s.refresh()
	s.row(`{"id":2,"y":100,"x":21,"kept":null,"extra":5,"gone":null}`, "a", "2")
}

// TestAlterTableAndFlush is the same, up to Postgres.
func TestAlterTableAndFlush(t *testing.T) {
	s := setup(t, `create type mood as enum ('sad'); create table a (id int primary key, x int, y int, gone text, kept text, m mood, n int)`)
	for _, row := range []string{`{"id":1,"x":10,"y":20,"gone":"g","kept":"k","m":"sad","n":7}`, `{"id":2,"x":11,"y":21}`, `{"id":3,"x":12,"y":22}`, `{"id":4,"n":40000}`} {
		s.post("a", row)
	}
	s.do(http.MethodPatch, s.path("a", "2"), `{"x":100,"gone":"h"}`).accept(t, 202)
	s.do(http.MethodPost, s.path("a", "3", "increment"), `{"y":5}`).accept(t, 202)
	s.exec(`alter table a rename x to z; alter table a rename y to x; alter table a rename z to y;
		alter table a drop gone; alter table a add extra int default 5; alter table a alter n type smallint`)
	s.exec(`alter type mood add value 'glad'`)
	s.refresh()
	s.post("a", `{"id":5,"m":"glad","x":1}`)
	s.startFlusher()
	s.flushed()
	require.Equal(t, "1:10:20:k:5:7 2:100:21::5: 3:12:27::5: 5::1::5:",
		s.text(`select string_agg(concat_ws(':', id, coalesce(y::text, ''), coalesce(x::text, ''), coalesce(kept, ''), extra, coalesce(n::text, '')), ' ' order by id) from a`))
	require.Equal(t, "22003", s.text(`select string_agg(sqlstate, ' ') from headpond.dead_letters`), "40000 fits no smallint")
}

// TestAlterTableHotKey: what is known of a key that is written to all the time
// is not laid over columns that are others now.
func TestAlterTableHotKey(t *testing.T) {
	s := setup(t, `create table a (id int primary key, gone int, x int not null default 0, y text)`)
	s.post("a", `{"id":1,"gone":9,"x":10,"y":"why"}`)
	s.do(http.MethodPost, s.path("a", "1", "increment"), `{"x":1}`).accept(t, 202)
	s.exec(`alter table a drop gone; alter table a rename x to n; alter table a add z int, add x int`)
	s.refresh()
	s.do(http.MethodPost, s.path("a", "1", "increment"), `{"n":1}`).accept(t, 202)
	s.do(http.MethodPatch, s.path("a", "1"), `{"z":5}`).accept(t, 202)
	s.row(`{"id":1,"n":12,"y":"why","z":5,"x":null}`, "a", "1")
	s.startFlusher()
	s.flushed()
	require.JSONEq(t, `{"id":1,"n":12,"y":"why","z":5,"x":null}`, s.text(`select to_jsonb(a) from a`))
}

// TestTableSwapped: a table that another one takes the name of, or that is
// dropped and created again, is another table: its columns have numbers of
// their own, and rows that wait find theirs by name.
func TestTableSwapped(t *testing.T) {
	s := setup(t, `create table a (id int primary key, x int, y int, gone text); create table b (y int, x int, added int default 7, id int primary key)`)
	s.post("a", `{"id":1,"x":10,"y":20,"gone":"g"}`)
	s.do(http.MethodPatch, s.path("a", "1"), `{"x":11}`).accept(t, 202)
	s.exec(`alter table a rename to was; alter table b rename to a`)
	stop := s.startFlusher()
	time.Sleep(300 * time.Millisecond)
	require.Zero(t, s.count("a"), "nothing is written by a catalog of before")
	stop()
	s.refresh()
	s.row(`{"id":1,"x":11,"y":20,"added":7}`, "a", "1")
	s.startFlusher()
	s.flushed()
	require.JSONEq(t, `{"id":1,"x":11,"y":20,"added":7}`, s.text(`select to_jsonb(a) from a`))
	require.Zero(t, s.count("was"))
}

// TestAlterTableAndRead: a row that is loaded by a catalog of before is not
// kept as one of today.
func TestAlterTableAndRead(t *testing.T) {
	s := setup(t, `create table a (id int primary key, x int, y int); insert into a values (1, 10, 20)`)
	s.exec(`alter table a rename x to z; alter table a rename y to x; alter table a rename z to y`)
	require.Equal(t, http.StatusServiceUnavailable, s.get(s.path("a", "1")).status)
	s.refresh()
	s.row(`{"id":1,"y":10,"x":20}`, "a", "1")
}

// TestPrimaryKeyChanged: a flush that knows another primary key writes nothing.
func TestPrimaryKeyChanged(t *testing.T) {
	s := setup(t, `create table a (id int, part int, x int, primary key (id)); insert into a values (1, 1, 0)`)
	s.do(http.MethodPatch, s.path("a", "1"), `{"x":5}`).accept(t, 202)
	s.exec(`alter table a drop constraint a_pkey, add primary key (id, part); insert into a values (1, 2, 0)`)
	stop := s.startFlusher()
	time.Sleep(300 * time.Millisecond)
	require.Equal(t, "0 0", s.text(`select string_agg(x::text, ' ') from a`), "nothing is written by a catalog of before")
	stop()
	s.refresh()
	s.startFlusher()
	s.flushed()
	require.Equal(t, "5 0", s.text(`select string_agg(x::text, ' ' order by part) from a`))
}

// TestAlterTableNoticedLater: an API that has not noticed a new column yet does
// not write over a row that has a value there, unless the row is in Postgres;
// one that has noticed sees the value all the time.
func TestAlterTableNoticedLater(t *testing.T) {
	s := setup(t, `create table a (id int primary key, x int)`)
	s.post("a", `{"id":1,"x":1}`)
	before := s.tables()
	s.exec(`alter table a add z int`)
	s.refresh()
	now := s.tables()
	s.do(http.MethodPatch, s.path("a", "1"), `{"z":5}`).accept(t, 202)
	s.SetTables(before)
	s.do(http.MethodPatch, s.path("a", "1"), `{"x":2}`).problem(t, 503, "store_unavailable")
	s.exec(`insert into a values (2, 1, 7)`)
	s.do(http.MethodPatch, s.path("a", "2"), `{"x":2}`).accept(t, 202)
	s.SetTables(now)
	s.row(`{"id":1,"x":1,"z":5}`, "a", "1")
	s.row(`{"id":2,"x":2,"z":7}`, "a", "2")
	for _, id := range []string{"1", "2"} {
		s.do(http.MethodPost, s.path("a", id, "increment"), `{"x":1,"z":1}`).accept(t, 202)
	}
	s.startFlusher()
	s.flushed()
	require.JSONEq(t, `[{"id":1,"x":2,"z":6},{"id":2,"x":3,"z":8}]`, s.text(`select json_agg(to_jsonb(a) order by id) from a`))
}

// tables is what refresh publishes now.
func (s *stack) tables() map[string]*api.Served {
	out := make(map[string]*api.Served)
	for name, tbl := range *s.current.Load() {
		out[name] = &api.Served{Table: tbl, Target: s.targets[name], Strategy: "write-behind", TTL: s.o.ttl, Lag: time.Second, Cache: "rows"}
	}
	return out
}
