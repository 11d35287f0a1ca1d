package api_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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
