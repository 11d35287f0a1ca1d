package main_test

import (
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// commitStack is an API with a small load, and a proxy for its flusher.
func commitStack(t *testing.T, fault func(n int) commitFault) (*servers, *headpond, *mixed, *pgProxy) {
	program := buildProgram(t)
	t.Parallel()
	_, seed := seeded(t)
	s := startServers(t, program)
	execute(t, s.postgres.URL(), mixedTables)
	h := s.serve(t, "--role", "api")
	m := startMixed(t, seed, &mixed{url: func() string { return h.api }, prefix: "mixed"})
	return s, h, m, startProxy(t, s.postgres.URL(), "headpond flusher", fault)
}

// every third COMMIT, ten times
func tenTimes(f commitFault) func(int) commitFault {
	return func(n int) commitFault {
		if n%3 == 1 && n <= 30 {
			return f
		}
		return passCommit
	}
}

// TestCommitNeverArrives: the connection breaks before Postgres has got the
// COMMIT. The batch is flushed again (F6).
func TestCommitNeverArrives(t *testing.T) {
	s, h, m, p := commitStack(t, tenTimes(loseCommit))
	losesCommits(t, s, h, m, p)
}

// TestCommitAnswerIsLost: Postgres has committed, and the connection breaks before
// the answer. The next claim finds that out (F5).
func TestCommitAnswerIsLost(t *testing.T) {
	s, h, m, p := commitStack(t, tenTimes(loseAnswer))
	losesCommits(t, s, h, m, p)
}

func losesCommits(t *testing.T, s *servers, h *headpond, m *mixed, p *pgProxy) {
	f := flusher(t, s.program, p.url, s.redis.URL())
	await(t, "ten broken COMMITs and enough rows", func() bool { return p.happened() == 10 && m.answered() >= 200 })
	m.stop()
	h.settled(t)
	m.arrived(t, s.postgres.URL())
	require.Contains(t, f.log.String(), `"msg":"flush"`, "it was told")
}

// TestCommitOfAZombie: a flusher dies when its COMMIT is on its way, and it takes
// long. Another goes on with all that is not locked, and with the rest when the
// COMMIT has come after all (F4).
func TestCommitOfAZombie(t *testing.T) {
	var held atomic.Bool
	s, h, m, p := commitStack(t, func(int) commitFault {
		if held.CompareAndSwap(true, false) {
			return holdCommit
		}
		return passCommit
	})
	zombie := flusher(t, s.program, p.url, s.redis.URL())
	other := flusher(t, s.program, s.postgres.URL(), s.redis.URL())
	other.logged("catalog read")
	held.Store(true)
	<-p.held
	zombie.kill()
	before := committed(t, s.postgres.URL())
	await(t, "commits of the other", func() bool { return committed(t, s.postgres.URL()) > before && m.answered() >= 200 })
	m.stop()
	const waiting = `select count(*) from pg_stat_activity where application_name = 'headpond flusher' and state = 'idle in transaction'
		and state_change < now() - interval '100 ms'`
	await(t, "only the zombie's transaction to be open", func() bool { return value[int64](t, s.postgres.URL(), waiting) == 1 })
	require.Positive(t, h.status(t).Ledger.Pending, "what the zombie has locked")
	close(p.release)
	h.settled(t)
	m.arrived(t, s.postgres.URL())
}

// TestFlusherPaused: a flusher is stopped in the middle of its work, and with it
// what it has locked (F3). Another goes on with the rest. When the first goes on,
// what it began is worth as much as it was, or Postgres has ended it meanwhile.
func TestFlusherPaused(t *testing.T) {
	s, h, m, p := commitStack(t, func(int) commitFault { return passCommit })
	paused := flusher(t, s.program, p.url, s.redis.URL())
	other := flusher(t, s.program, s.postgres.URL(), s.redis.URL())
	paused.logged("catalog read")
	other.logged("catalog read")
	for range 5 {
		require.NoError(t, syscall.Kill(paused.pid(), syscall.SIGSTOP))
		before, answers := committed(t, s.postgres.URL()), m.answered()
		await(t, "commits of the other", func() bool { return committed(t, s.postgres.URL()) > before && m.answered() > answers+20 })
		require.NoError(t, syscall.Kill(paused.pid(), syscall.SIGCONT))
		await(t, "commits", func() bool { return committed(t, s.postgres.URL()) > before+100 })
	}
	await(t, "some more rows", func() bool { return m.answered() >= 200 })
	m.stop()
	h.settled(t)
	m.arrived(t, s.postgres.URL())
}
