package api

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
)

// TestRateLimitForgets: its memory is bounded, and a client that comes again is
// remembered.
func TestRateLimitForgets(t *testing.T) {
	t.Parallel()
	l := newRateLimit(1, 1)
	l.mostKept = 10
	now := time.Now()
	require.Zero(t, l.wait("192.0.2.200", now))
	for i := range 200 {
		require.Zero(t, l.wait(fmt.Sprintf("192.0.2.%d", i), now))
		require.LessOrEqual(t, len(l.young)+len(l.old), 20)
		require.Positive(t, l.wait("192.0.2.200", now))
	}
	require.Zero(t, l.wait("192.0.2.200", now.Add(time.Second)), "what was refused took nothing from it")
	require.Equal(t, clientKey("2001:db8::1"), clientKey("2001:db8::ffff:1"), "one client has all of a /64")
	require.NotEqual(t, clientKey("2001:db8::1"), clientKey("2001:db8:0:1::1"))
	require.Equal(t, clientKey("192.0.2.1"), clientKey("::ffff:192.0.2.1"))
}

// TestRetryAfter: from the drain rate, within its bounds, and not the same for all.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		full        buffer.BacklogFull
		least, most int
	}{
		{buffer.BacklogFull{Drain: 10, Retry: 40 * time.Second}, 30, 50},
		{buffer.BacklogFull{Drain: 10, Retry: time.Millisecond}, 1, 2},
		{buffer.BacklogFull{Drain: 0.001, Retry: time.Hour}, 90, 120},
		{buffer.BacklogFull{}, 12, 19},
	} {
		seen := make(map[int]bool)
		for range 200 {
			n := retryAfter(&c.full)
			require.True(t, c.least <= n && n <= c.most, "%d for %+v", n, c.full)
			seen[n] = true
		}
		require.Greater(t, len(seen), 1, "%+v", c.full)
	}
}

// TestDrainRate: the better of a short and a long look, and nothing when it
// stands still.
func TestDrainRate(t *testing.T) {
	t.Parallel()
	began := time.Now()
	books := func(done ...int64) *books {
		b := &books{}
		for i, n := range done {
			b.samples = append(b.samples, sample{at: began.Add(time.Duration(i) * sampleEvery), tables: map[string]Book{"t": {ledgerLine: ledgerLine{Committed: n, Pending: 5}}}})
		}
		return b
	}
	require.Zero(t, books().drain("t"))
	require.Zero(t, books(7).drain("t"))
	require.InDelta(t, 5, books(0, 10, 20).drain("t"), 0.01)
	require.InDelta(t, 100, books(0, 0, 0, 200, 400).drain("t"), 0.01, "it has just begun")
	require.InDelta(t, 51, books(0, 200, 400, 406, 408).drain("t"), 0.01)
	require.Zero(t, books(0, 200, 400, 400, 400).drain("t"), "it stands still")
	require.Zero(t, books(0, 10).drain("u"))
}
