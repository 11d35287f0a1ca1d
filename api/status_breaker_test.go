package api_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// TestBreakerInStatus: the worst of all flushers is shown, and nothing is blocked
// while one of them flushes.
func TestBreakerInStatus(t *testing.T) {
	t.Parallel()
	s := setupWith(t, `create table t (id int primary key)`, options{redis: uptest.Redis(t).URL()}) // flushers of other tests report elsewhere
	since, next := time.Now().Add(-time.Minute).UTC().Truncate(time.Second), time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	report := func(id string, b buffer.Breaker) {
		require.NoError(t, s.buf.Report(context.Background(), buffer.FlusherStats{ID: s.schema + id, At: time.Now(), Breaker: b}))
	}
	type shown struct {
		Verdict, Why string
		Breaker      struct {
			State, Process, Why string
			Since               time.Time
			Next                time.Time `json:"next_try_at"`
		}
	}
	status := func() (out shown) {
		a := s.get("/admin/v1/status")
		require.Equal(t, 200, a.status)
		a.into(t, &out)
		return out
	}
	require.Equal(t, "closed", status().Breaker.State)
	report("a", buffer.Breaker{State: buffer.BreakerOpen, Since: since, Why: "connection refused", Next: next})
	st := status()
	require.Equal(t, "open", st.Breaker.State)
	require.Equal(t, s.schema+"a", st.Breaker.Process)
	require.Equal(t, since, st.Breaker.Since)
	require.Equal(t, next, st.Breaker.Next)
	require.Equal(t, "blocked", st.Verdict)
	require.Contains(t, st.Why, "connection refused")
	require.Contains(t, st.Why, "Writes are accepted and wait in Redis.")

	report("b", buffer.Breaker{State: buffer.BreakerHalfOpen, Since: since, Why: "starting", Next: next})
	require.Equal(t, "open", status().Breaker.State, "the worst")
	report("b", buffer.Breaker{State: buffer.BreakerClosed})
	st = status()
	require.Equal(t, "open", st.Breaker.State)
	require.Equal(t, "ok", st.Verdict, "the other flushes")
	report("a", buffer.Breaker{})
	require.Equal(t, "closed", status().Breaker.State, "of a version that does not tell")
}
