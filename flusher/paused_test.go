package flusher

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestPausedTable: its rows wait, also through a stop, which does not wait for
// them; resumed it goes on by itself.
func TestPausedTable(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.paused = true
	w.add(0, 5)
	w.add(2, 7)
	f, err := New(Config{Workers: 2, Sweep: 20 * time.Millisecond, Drain: time.Hour}, w, w, nil, w, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	f.Set(Table{Name: "t", Partitions: 3, Linger: time.Millisecond, TargetLag: time.Second})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	require.Eventually(t, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.asked > 1
	}, 20*time.Second, time.Millisecond)
	st := f.Stats()
	require.Equal(t, "the table is paused: its rows wait until it is resumed", st.Tables["t"].Error)
	require.False(t, st.Tables["t"].Halted)
	require.Zero(t, st.Tables["t"].Failures)
	require.Empty(t, st.LastError)
	cancel()
	select {
	case err := <-done:
		require.NoError(t, err)
	case <-time.After(30 * time.Second):
		t.Fatal("the stop waits for rows of a paused table")
	}
	require.Zero(t, w.flushes)

	w.paused = false
	again, stop := w.start(t, nil)
	defer stop()
	require.Eventually(t, func() bool { return w.seq(0) == 5 && w.seq(2) == 7 }, 20*time.Second, time.Millisecond)
	require.Eventually(t, func() bool { st := again.Stats(); return !st.LastCommit.IsZero() && st.Tables["t"].Rows == 12 }, 20*time.Second, time.Millisecond)
}
