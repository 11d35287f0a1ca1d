package main_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestDrain: SIGTERM under load. What is in flight is answered, what comes
// later is refused, the exit code is 0, and all that was acknowledged is in
// Postgres when the process has ended.
func TestDrain(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	_, seed := seeded(t)
	s := startServers(t, program)
	execute(t, s.postgres.URL(), loadTables)
	h := s.serve(t)
	h.serves(t, loadNames...)
	l := newLoad(t, 1<<40, func() string { return h.api })
	l.start(seed)
	l.allow(60_000)
	await(t, "rows", l.ackedAtLeast(20_000))
	l.allow(1 << 40)
	l.ending.Store(true)
	h.terminate()
	await(t, "the end", h.ended) // the load goes on all the while
	l.stop()
	require.Zero(t, h.wait(), h.log.String())
	l.refusedAtTheEnd()
	l.arrived(t, s.postgres.URL())
}

// TestDrainWithoutPostgres: it ends in time, and what it could not flush is
// flushed after the next start.
func TestDrainWithoutPostgres(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	_, seed := seeded(t)
	s := startServers(t, program)
	execute(t, s.postgres.URL(), loadTables)
	h := s.serve(t, "--config", writeConfig(t, "flusher: { drain: 2s }"))
	h.serves(t, loadNames...)
	l := newLoad(t, 1<<40, func() string { return h.api })
	l.start(seed)
	l.allow(10_000)
	await(t, "rows", l.ackedAtLeast(5_000))
	require.NoError(t, s.postgres.Kill())
	least := l.done.Load() + 10_000
	l.allow(1 << 40)
	await(t, "rows without Postgres", l.ackedAtLeast(least))
	l.ending.Store(true)
	h.terminate()
	began := time.Now()
	require.Zero(t, h.wait(), h.log.String())
	t.Logf("ended after %s", time.Since(began).Round(time.Millisecond))
	l.stop()
	l.refusedAtTheEnd()
	require.Contains(t, h.log.String(), "drain deadline reached")

	require.NoError(t, s.postgres.Restart(t.Context()))
	require.Less(t, committed(t, s.postgres.URL()), l.done.Load(), "there is nothing left to be flushed")
	h = s.serve(t)
	h.settled(t)
	l.arrived(t, s.postgres.URL())
}

// refusedAtTheEnd: every request that was begun before SIGTERM has its answer.
// Later ones were refused, or their connection waited for accept(2) when the
// listener was closed: such a request was never read, so it must not arrive.
func (l *load) refusedAtTheEnd() {
	l.t.Helper()
	l.only("202", "503 draining", "not connected", "no answer near the end")
	require.NotZero(l.t, l.answers("503 draining"), "the load ended too early to see it")
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, outcomes := range l.outcomes {
		for n, o := range outcomes {
			if o == unknown {
				outcomes[n] = refused
			}
		}
	}
}
