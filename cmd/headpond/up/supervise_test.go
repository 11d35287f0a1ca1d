package up_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/cmd/headpond/up"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// kept is a log that can be read while it is written.
type kept struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (k *kept) Write(p []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.text.Write(p)
}

func (k *kept) String() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.text.String()
}

func TestSuperviseStartsItAgain(t *testing.T) {
	t.Parallel()
	var log kept
	r, err := up.StartRedis(t.Context(), up.RedisOptions{
		Dir: filepath.Join(uptest.Dir(t), "redis"), Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Supervise(ctx) }()

	url := r.URL()
	for range 2 {
		pid := r.PID()
		require.NoError(t, r.Kill())
		require.Eventually(t, func() bool { return r.PID() != 0 && r.PID() != pid }, soon, tick)
	}
	require.Equal(t, url, r.URL())
	require.NoError(t, client(t, r).Ping(t.Context()).Err())
	require.Contains(t, log.String(), "signal: killed")
	require.Contains(t, log.String(), "Ready to accept connections", "the last lines of the child's log")

	cancel()
	require.NoError(t, <-done)
	require.Zero(t, r.PID())
}

func TestSuperviseLeavesRestartAlone(t *testing.T) {
	t.Parallel()
	r := uptest.Redis(t)
	done := make(chan error, 1)
	go func() { done <- r.Supervise(t.Context()) }()
	for range 5 {
		before := r.PID()
		require.NoError(t, r.Restart(t.Context()))
		require.NotEqual(t, before, r.PID())
		require.NotZero(t, r.PID())
	}
	require.NoError(t, r.Stop())
	require.NoError(t, <-done)
	log, err := os.ReadFile(r.LogFile())
	require.NoError(t, err)
	require.Equal(t, 1+5, strings.Count(string(log), "Ready to accept connections"), "no start but those asked for")
}

func TestStopEndsSupervise(t *testing.T) {
	t.Parallel()
	r := uptest.Redis(t)
	done := make(chan error, 1)
	go func() { done <- r.Supervise(t.Context()) }()
	require.NoError(t, r.Kill(), "so that the stop may come in the midst of a start")
	require.NoError(t, r.Stop())
	require.NoError(t, <-done)
	require.Zero(t, r.PID())
}

func TestSuperviseBringsPostgresBack(t *testing.T) {
	t.Parallel()
	p := uptest.Postgres(t)
	done := make(chan error, 1)
	go func() { done <- p.Supervise(t.Context()) }()
	exec(t, p.URL(), "CREATE TABLE kept AS SELECT 42 AS n")
	pid := p.PID()
	require.NoError(t, p.Kill())
	require.Eventually(t, func() bool { return p.PID() != 0 && p.PID() != pid }, soon, tick)
	require.Equal(t, 42, query[int](t, p.URL(), "SELECT n FROM kept"))
	require.NoError(t, p.Stop())
	require.NoError(t, <-done)
}
