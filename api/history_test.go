package api_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// TestHistoryWhileNobodyLooks: it goes on, though less is read while nothing happens,
// and sees what comes then.
func TestHistoryWhileNobodyLooks(t *testing.T) {
	t.Parallel()
	s := setup(t, `create table t (id int primary key)`)
	s.sampling()
	var h historyJSON
	read := func() int { s.get("/admin/v1/history").into(t, &h); return len(h.T) }
	require.Eventually(t, func() bool { return read() >= 4 }, 40*time.Second, 50*time.Millisecond)
	require.IsIncreasing(t, h.T)
	require.Zero(t, *h.Total["backlog_rows"][3])
	s.post("t", `[{"id":1},{"id":2}]`)
	require.Eventually(t, func() bool {
		n := read()
		v := h.Tables[s.schema+".t"]["backlog_rows"][n-1]
		return v != nil && *v == 2
	}, 40*time.Second, 50*time.Millisecond)
	older := *h.Total["oldest_ms"][len(h.T)-1]
	require.Eventually(t, func() bool {
		n := read()
		return *h.Total["oldest_ms"][n-1] > older
	}, 40*time.Second, 50*time.Millisecond)
}

// TestClockAhead: a row was accepted by a process whose clock is an hour ahead. No
// age and no lag is below zero.
func TestClockAhead(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table t (id int primary key)`, options{partitions: 1})
	name := s.schema + ".t"
	c := &buffer.Chunk{Target: s.targets[name], Columns: (*s.current.Load())[name].Header(), Accepted: time.Now().Add(time.Hour).UnixMicro()}
	c.Add(table.OpInsert, []byte("1\n"), "1", buffer.ExpectNothing)
	require.NoError(t, s.buf.Append(t.Context(), c))
	s.sampling()
	st := s.status()
	require.EqualValues(t, 1, st.Backlog.Rows)
	require.Zero(t, st.Oldest)
	receipt := name + ".0.1.1"
	pending := s.lifeOf(receipt)
	require.Zero(t, *pending.Lag)
	require.False(t, pending.Steps[1].At.Before(*pending.Steps[0].At), "the clock of Redis is behind it")
	s.startFlusher()
	s.flushed()
	require.Zero(t, *s.lifeOf(receipt).Lag)
	var h historyJSON
	s.get("/admin/v1/history").into(t, &h)
	for _, v := range h.Total["oldest_ms"] {
		require.True(t, v == nil || *v >= 0)
	}
}
