package api_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
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
	require.Eventually(t, func() bool { return *h.Total["oldest_ms"][read()-1] > older }, 40*time.Second, 50*time.Millisecond)
}
