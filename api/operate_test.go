package api_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type pausedJSON struct {
	Table  string
	Paused bool
	Since  *time.Time
}

// TestPause: a paused table takes writes and is not flushed, by nobody, also when
// processes start anew; others go on. Resumed it goes on by itself.
func TestPause(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key); create table u (id int primary key)`)
	s.startFlusher()
	s.sampling()
	name := s.schema + ".t"
	var first, second pausedJSON
	s.do("POST", "/admin/v1/tables/"+name+"/pause", "").into(t, &first)
	require.True(t, first.Paused)
	s.do("POST", "/admin/v1/tables/"+name+"/pause", "").into(t, &second)
	require.Equal(t, first, second, "it stays as it was")

	s.post("t", `[{"id":1},{"id":2}]`)
	require.Equal(t, 201, s.post("u", `{"id":1}`, "Prefer", "wait=30").status, "the other table goes on")
	require.Equal(t, 200, s.get(s.path("t", "1")).status)
	p := s.do("POST", s.path("t", "flush")+"?wait=1s", "").problem(t, 504, "flush_timeout")
	require.Equal(t, "no", p.Applied)
	require.Zero(t, s.count("t"))

	s.restart() // an API that knows nothing
	type statusOf struct {
		Verdict, Why string
		Tables       map[string]struct {
			Verdict, Why string
			Paused       *struct{ Since time.Time }
			Backlog      struct{ Rows int }
		}
	}
	var st statusOf
	s.get("/admin/v1/status").into(t, &st)
	require.Equal(t, "blocked", st.Verdict)
	require.Contains(t, st.Why, "Table "+name+" is paused since")
	require.Contains(t, st.Why, "2 rows wait")
	require.Equal(t, "blocked", st.Tables[name].Verdict)
	require.True(t, st.Tables[name].Paused.Since.Equal(*first.Since))
	require.Equal(t, "ok", st.Tables[s.schema+".u"].Verdict)
	require.Nil(t, st.Tables[s.schema+".u"].Paused)

	var after pausedJSON
	s.do("POST", "/admin/v1/tables/"+name+"/resume", "").into(t, &after)
	require.False(t, after.Paused)
	s.flushed()
	require.Equal(t, 2, s.count("t"))
	require.Equal(t, 200, s.do("POST", "/admin/v1/tables/"+name+"/resume", "").status, "again")
	s.do("POST", "/admin/v1/tables/nobody/pause", "").problem(t, 404, "table_not_found")
	s.do("POST", "/admin/v1/tables/nobody/resume", "").problem(t, 404, "table_not_found")
	require.Equal(t, 200, s.do("POST", "/admin/v1/tables/"+name+"/reload", "").status)
	s.do("POST", "/admin/v1/tables/nobody/reload", "").problem(t, 404, "table_not_found")
}

// TestPauseOfADirectTable: there are no flushes to pause.
func TestPauseOfADirectTable(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table t (id int primary key)`, options{strategy: "write-through"})
	s.do("POST", "/admin/v1/tables/"+s.schema+".t/pause", "").problem(t, 409, "table_not_usable")
}

type rowStateJSON struct {
	Key       string
	Partition int
	Buffer    struct {
		State   string
		Row     json.RawMessage
		Receipt *string
		Expires *int64 `json:"expires_in_ms"`
	}
	Postgres struct {
		Row   json.RawMessage
		Error *string
	}
	Same    *bool
	Pending []struct {
		Receipt, Operation string
		Accepted           time.Time `json:"accepted_at"`
		Row                json.RawMessage
	}
	Complete bool `json:"pending_complete"`
	Letters  []struct {
		ID     int
		Reason string
	} `json:"dead_letters"`
}

func (s *stack) rowState(tbl, key string) (out rowStateJSON) {
	s.t.Helper()
	a := s.get("/admin/v1/tables/" + s.schema + "." + tbl + "/rows/" + key)
	require.Equal(s.t, 200, a.status, string(a.body))
	a.into(s.t, &out)
	return out
}

// TestRowState follows a row through its life: nowhere, pending with each change of
// it, committed, loaded, deleted, refused; and with Postgres away.
func TestRowState(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table t (id text primary key, v int check (v <> 13), w text, twice int generated always as (2 * v) stored)`,
		options{cuttable: true, partitions: 1})
	st := s.rowState("t", "a")
	require.Equal(t, "none", st.Buffer.State)
	require.JSONEq(t, "null", string(st.Buffer.Row))
	require.JSONEq(t, "null", string(st.Postgres.Row))
	require.Nil(t, st.Same, "the buffer knows nothing of it")
	require.Empty(t, st.Pending)
	require.True(t, st.Complete)

	put := s.do("PUT", s.path("t", "a"), `{"v":1,"w":"<script>"}`).header.Get("Headpond-Receipt")
	s.do("PUT", s.path("t", "b"), `{"v":2}`)
	patch := s.do("PATCH", s.path("t", "a"), `{"v":3}`).header.Get("Headpond-Receipt")
	st = s.rowState("t", "a")
	require.Equal(t, "pending", st.Buffer.State)
	require.JSONEq(t, `{"id":"a","v":3,"w":"<script>"}`, string(st.Buffer.Row))
	require.Equal(t, patch, *st.Buffer.Receipt)
	require.False(t, *st.Same, "Postgres does not have it yet")
	require.Len(t, st.Pending, 2)
	require.Equal(t, []string{patch, "patch", put, "put"}, []string{st.Pending[0].Receipt, st.Pending[0].Operation, st.Pending[1].Receipt, st.Pending[1].Operation})
	require.JSONEq(t, `{"id":"a","v":1,"w":"<script>"}`, string(st.Pending[1].Row))
	require.WithinDuration(t, time.Now(), st.Pending[0].Accepted, time.Minute)

	stop := s.startFlusher()
	s.flushed()
	require.Equal(t, "none", s.rowState("t", "a").Buffer.State, "the index holds what waits")
	require.Equal(t, 200, s.get(s.path("t", "a")).status)
	st = s.rowState("t", "a")
	require.Equal(t, "clean", st.Buffer.State)
	require.JSONEq(t, `{"id":"a","v":3,"w":"<script>","twice":6}`, string(st.Postgres.Row))
	require.True(t, *st.Same, "what is computed there is not compared")
	require.Empty(t, st.Pending)

	s.exec(`insert into t values ('c', 5, 'first')`)
	require.Equal(t, "none", s.rowState("t", "c").Buffer.State)
	require.Equal(t, "none", s.rowState("t", "c").Buffer.State, "a look loads nothing")
	require.Equal(t, 200, s.get(s.path("t", "c")).status)
	st = s.rowState("t", "c")
	require.Equal(t, "clean", st.Buffer.State)
	require.Positive(t, *st.Buffer.Expires)
	require.Nil(t, st.Buffer.Receipt)
	require.True(t, *st.Same)
	s.exec(`update t set w = 'behind our back' where id = 'c'`)
	require.False(t, *s.rowState("t", "c").Same)

	s.do("PUT", s.path("t", "d"), `{"v":13}`)
	s.flushed()
	require.Len(t, s.rowState("t", "d").Letters, 1)
	require.Contains(t, s.rowState("t", "d").Letters[0].Reason, "t_v_check")
	stop()
	s.do("DELETE", s.path("t", "b"), "")
	st = s.rowState("t", "b")
	require.Equal(t, "gone", st.Buffer.State)
	require.Equal(t, "delete", st.Pending[0].Operation)
	require.JSONEq(t, `null`, string(st.Pending[0].Row))
	require.False(t, *st.Same)

	s.wire.cut()
	st = s.rowState("t", "a")
	require.Equal(t, "clean", st.Buffer.State)
	require.Contains(t, *st.Postgres.Error, "cannot be asked")
	require.Nil(t, st.Same)
}

// TestRowStateOfManyWrites: no more than the newest are told of, and that there are more.
func TestRowStateOfManyWrites(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table t (id int primary key, v int); create table keyless (v int)`, options{partitions: 1})
	for range 25 {
		require.Equal(t, 202, s.do("PUT", s.path("t", "1"), `{"v":1}`).status)
	}
	st := s.rowState("t", "1")
	require.Len(t, st.Pending, 20)
	require.False(t, st.Complete)
	s.get("/admin/v1/tables/"+s.schema+".keyless/rows/1").problem(t, 409, "no_primary_key")
	s.get("/admin/v1/tables/"+s.schema+".t/rows/1,2").problem(t, 400, "bad_key")
	s.get("/admin/v1/tables/"+s.schema+".t/rows/x").problem(t, 422, "invalid_key")
	s.get("/admin/v1/tables/nobody/rows/1").problem(t, 404, "table_not_found")
}

type writeLifeJSON struct {
	Receipt, State, Detail string
	Steps                  []struct {
		Name string
		At   *time.Time
	}
	Lag   *int64 `json:"lag_ms"`
	Batch *struct{ Rows, From, To uint64 }
}

func (s *stack) lifeOf(receipt string) (w writeLifeJSON) {
	s.t.Helper()
	a := s.get("/admin/v1/writes/" + receipt)
	require.Equal(s.t, 200, a.status, string(a.body))
	a.into(s.t, &w)
	return w
}

// TestWriteLife: each step has its time, in order, and the batch its rows.
func TestWriteLife(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table t (id int primary key, v int check (v <> 13))`, options{partitions: 1})
	life := s.lifeOf
	began := time.Now().Add(-time.Second)
	first := s.do("PUT", s.path("t", "1"), `{"v":1}`).header.Get("Headpond-Receipt")
	second := s.do("PUT", s.path("t", "2"), `{"v":13}`).header.Get("Headpond-Receipt")
	w := life(first)
	require.Equal(t, "pending", w.State)
	require.NotNil(t, w.Steps[0].At)
	require.NotNil(t, w.Steps[1].At)
	require.Nil(t, w.Steps[2].At)
	require.Nil(t, w.Batch)
	require.Contains(t, w.Detail, "waits for a flush")
	require.Equal(t, 200, s.do("POST", "/admin/v1/tables/"+s.schema+".t/pause", "").status)
	require.Contains(t, life(first).Detail, "paused")
	require.Equal(t, 200, s.do("POST", "/admin/v1/tables/"+s.schema+".t/resume", "").status)

	s.startFlusher()
	s.flushed()
	w = life(first)
	require.Equal(t, "committed", w.State)
	before := began
	for i, name := range []string{"accepted", "in_redis", "picked_up", "copied", "committed"} {
		require.Equal(t, name, w.Steps[i].Name)
		require.False(t, w.Steps[i].At.Before(before.Truncate(time.Millisecond)), "%s at %s, after %s", name, w.Steps[i].At, before)
		before = *w.Steps[i].At
	}
	require.Less(t, time.Since(before), time.Minute)
	require.NotNil(t, w.Lag)
	require.EqualValues(t, 2, w.Batch.Rows)
	require.EqualValues(t, 1, w.Batch.From)
	require.EqualValues(t, 2, w.Batch.To)
	require.Equal(t, "dead-lettered", life(second).State)
	require.Contains(t, life(second).Detail, "t_v_check")

	third := s.do("PUT", s.path("t", "3"), `{"v":3}`).header.Get("Headpond-Receipt")
	s.flushed()
	require.EqualValues(t, 3, life(third).Batch.From)
	s.get("/admin/v1/writes/"+strings.TrimSuffix(third, ".3")+".99").problem(t, 404, "receipt_not_found")
	s.get("/admin/v1/writes/nonsense").problem(t, 404, "receipt_not_found")

	require.NoError(t, s.rdb.Del(t.Context(), "hp:{"+s.schema+".t.0}:commits", "hp:{"+s.schema+".t.0}:log").Err())
	w = life(first)
	require.Equal(t, "committed", w.State, "long ago")
	require.Nil(t, w.Steps[0].At)
	require.Contains(t, w.Detail, "not known any more")
}
