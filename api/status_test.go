package api_test

import (
	"context"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"

	"github.com/headpond/headpond/api"
	"github.com/headpond/headpond/flusher/postgres"
)

func newBareServer(t testing.TB, s *stack) (url string) {
	t.Helper()
	server, err := api.New(api.Limits{}, api.Deps{Buffer: s.buf, Edge: s.edge, Ledger: s.ledger, Letters: postgres.NewLetters(s.pool), Log: quiet})
	require.NoError(t, err)
	h := httptest.NewServer(server.Handler())
	t.Cleanup(h.Close)
	return h.URL
}

type ledgerJSON struct {
	Accepted, Committed, Pending, Coalesced, Lost int64
	Dead                                          int64 `json:"dead_lettered"`
}

func (l ledgerJSON) closes() bool {
	return l.Accepted == l.Committed+l.Pending+l.Dead+l.Coalesced+l.Lost
}

type statusJSON struct {
	Verdict, Why    string
	Redis, Postgres struct{ OK bool }
	Ledger          ledgerJSON
	Letters         int64 `json:"dead_letters"`
	Backlog         struct{ Rows, Bytes int64 }
	Oldest          int64 `json:"oldest_unflushed_ms"`
	Recoveries      []buffer.Event
	Warnings        []string
	Tables          map[string]struct {
		Ledger     ledgerJSON
		Halted     bool
		Error      string
		Oldest     int64 `json:"oldest_unflushed_ms"`
		Partitions []struct {
			Seq, Watermark uint64
			Rows           int64 `json:"backlog_rows"`
		}
	}
}

func (s *stack) status() (out statusJSON) {
	s.t.Helper()
	a := s.get("/admin/v1/status")
	require.Equal(s.t, 200, a.status)
	a.into(s.t, &out)
	return out
}

// report says what the flusher does, as cmd does once a second.
func (s *stack) report() {
	st := s.flusher.Stats()
	st.ID = s.schema
	require.NoError(s.t, s.buf.Report(context.Background(), st))
}

// TestLedgerCloses at any moment, while rows come in, go out and die.
func TestLedgerCloses(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key, v int check (v <> 13))`)
	s.startFlusher()
	var sent, acked atomic.Int64
	var writers sync.WaitGroup
	stop := make(chan struct{})
	for w := range 8 {
		writers.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				sent.Add(1)
				if a := s.do("POST", s.path("t"), row(`{"id":%d,"v":%d}`, w*1_000_000+i, i%20)); a.status == 202 {
					acked.Add(1)
				}
			}
		})
	}
	name := s.schema + ".t"
	for i := 0; i < 60 || s.count("headpond.dead_letters") == 0; i++ {
		least := acked.Load()
		st := s.status()
		most := sent.Load()
		for _, l := range []ledgerJSON{st.Ledger, st.Tables[name].Ledger} {
			require.True(t, l.closes(), "%+v", l)
			require.GreaterOrEqual(t, l.Accepted, least, "%+v", l)
			require.LessOrEqual(t, l.Accepted, most, "%+v", l)
			require.Zero(t, l.Lost)
		}
		var rows int64
		for _, p := range st.Tables[name].Partitions {
			require.GreaterOrEqual(t, p.Seq, p.Watermark)
			rows += p.Rows
		}
		require.Equal(t, st.Backlog.Rows, rows)
	}
	close(stop)
	writers.Wait()
	s.flushed()
	l := s.status().Ledger
	require.Equal(t, acked.Load(), l.Accepted)
	require.Zero(t, l.Pending)
	require.EqualValues(t, s.count("t"), l.Committed)
	require.EqualValues(t, s.count("headpond.dead_letters"), l.Dead)
	require.Positive(t, l.Dead)
}

// TestHaltedTable: a table whose schema does not fit any more stops, tells why,
// takes writes meanwhile, keeps nobody else, and goes on by itself.
func TestHaltedTable(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key, v int); create table other (id int primary key)`)
	s.post("t", `{"id":1,"v":1}`)
	s.exec(`alter table t rename to away`)
	s.startFlusher()
	name := s.schema + ".t"
	require.Eventually(t, func() bool { s.report(); return s.status().Tables[name].Halted }, 10*time.Second, 10*time.Millisecond)
	st := s.status()
	require.Equal(t, "blocked", st.Verdict)
	require.Contains(t, st.Why, name)
	require.Contains(t, st.Tables[name].Error, "42P01")
	require.True(t, st.Ledger.closes())

	s.post("t", `{"id":2,"v":2}`)
	require.Equal(t, 200, s.get(s.path("t", "1")).status)
	require.Equal(t, 201, s.post("other", `{"id":1}`, "Prefer", "wait=20").status, "the other table goes on")
	require.Zero(t, s.count("away"))

	s.exec(`alter table away rename to t`)
	s.flushed()
	require.Equal(t, 2, s.count("t where v = id"))
	require.Zero(t, s.count("headpond.dead_letters"))
	require.Eventually(t, func() bool { // the settled rows are heard of a moment before the worker reports
		s.report()
		st = s.status()
		return !st.Tables[name].Halted && st.Verdict == "ok"
	}, 10*time.Second, 10*time.Millisecond)
}

// TestStatusWithoutFlusher names what waits.
func TestStatusWithoutFlusher(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key); create table idle (id int primary key); create view looks as select 1 as x`)
	require.Equal(t, "ok", s.status().Verdict)
	s.post("t", `[{"id":1},{"id":2},{"id":3}]`)
	st := s.status()
	require.EqualValues(t, 3, st.Backlog.Rows)
	require.Positive(t, st.Backlog.Bytes)
	require.EqualValues(t, 3, st.Tables[s.schema+".t"].Ledger.Pending)
	require.Contains(t, st.Tables, s.schema+".idle")
	require.NotContains(t, st.Tables, s.schema+".looks")
	require.Eventually(t, func() bool { st = s.status(); return st.Oldest > 0 }, 5*time.Second, time.Millisecond)
}
