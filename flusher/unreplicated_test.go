package flusher

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestUnreplicatedCommits reach the log as such, and the status until one is sure.
func TestUnreplicatedCommits(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.unreplicated = true
	f, stop := w.start(t, nil)
	defer stop()
	w.add(0, 5)
	require.Eventually(t, func() bool { return !f.Stats().Unreplicated.IsZero() }, 5*time.Second, time.Millisecond)
	w.mu.Lock()
	require.True(t, w.said[0].Unreplicated)
	before := len(w.said)
	w.unreplicated = false
	w.mu.Unlock()
	w.add(0, 5)
	require.Eventually(t, func() bool { return f.Stats().Unreplicated.IsZero() }, 5*time.Second, time.Millisecond)
	w.mu.Lock()
	defer w.mu.Unlock()
	require.False(t, w.said[before].Unreplicated)
}
