package main_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// outage is how long Postgres is away.
func outage() time.Duration {
	if os.Getenv("HEADPOND_LONG") != "" {
		return 30 * time.Second
	}
	return 8 * time.Second
}

// steady lets the load on, portion by portion, until the time is over.
func (l *load) steady(d time.Duration, rowsEach int64, each time.Duration) {
	tick := time.NewTicker(each)
	defer tick.Stop()
	over := time.NewTimer(d)
	defer over.Stop()
	for {
		select {
		case <-tick.C:
			l.allow(min(l.begun.Load()+rowsEach, l.total))
		case <-over.C:
			return
		}
	}
}

// TestPostgresFrozen: Postgres takes connections and answers nothing.
func TestPostgresFrozen(t *testing.T) {
	stopPostgres(t, func(s *servers) (back func()) {
		frozen := freeze(t, s.postgres.PID())
		return func() {
			for _, pid := range frozen {
				require.NoError(t, syscall.Kill(pid, syscall.SIGCONT))
			}
		}
	})
}

// TestPostgresKilled: Postgres is not there, and then recovers.
func TestPostgresKilled(t *testing.T) {
	stopPostgres(t, func(s *servers) (back func()) {
		require.NoError(t, s.postgres.Kill())
		return func() { require.NoError(t, s.postgres.Restart(t.Context())) }
	})
}

// stopPostgres: while Postgres is away every write is accepted, those too
// whose keys come from a sequence of Postgres; then all arrive.
func stopPostgres(t *testing.T, away func(*servers) (back func())) {
	program := buildProgram(t)
	t.Parallel()
	_, seed := seeded(t)
	s := startServers(t, program)
	execute(t, s.postgres.URL(), loadTables)
	h := s.serve(t)
	h.serves(t, loadNames...)
	l := newLoad(t, 1<<40, func() string { return h.api })
	l.start(seed)
	// The reserve of keys from a sequence lasts for a minute at the speed of
	// the last ten seconds. So the load has to have been there for a while.
	l.steady(outage()/2, 1500, 100*time.Millisecond)
	before, serials := l.done.Load(), l.acknowledged("load_serial")
	back := away(s)
	l.steady(outage(), 1500, 100*time.Millisecond)
	during := l.done.Load() - before
	serials = l.acknowledged("load_serial") - serials
	back()
	l.steady(time.Second, 1500, 100*time.Millisecond)
	l.stop()
	t.Logf("%d rows were accepted while Postgres was away, %d of them with keys from a sequence", during, serials)
	require.Greater(t, during, int64(5_000), "too little was written for the test to mean anything")
	require.Greater(t, serials, 100)
	l.only("202")
	h.settled(t)
	l.arrived(t, s.postgres.URL())
}

// freeze stops a process and its children, and gives their pids.
func freeze(t *testing.T, pid int) []int {
	t.Helper()
	frozen := []int{pid}
	require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP)) // it forks no more
	for _, kid := range childrenOf(t, pid) {
		if syscall.Kill(kid, syscall.SIGSTOP) == nil {
			frozen = append(frozen, kid)
		}
	}
	return frozen
}

func childrenOf(t *testing.T, parent int) (kids []int) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(t, err)
	for _, file := range stats {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		if len(fields) < 2 || string(fields[1]) != strconv.Itoa(parent) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		require.NoError(t, err)
		kids = append(kids, pid)
	}
	return kids
}

// TestRedisKilled: Redis is killed and comes back, hangs for longer than a
// write may take and goes on, and is killed for longer than that. What was
// acknowledged is there once; what was refused is not; of what nobody could say
// it may be either.
func TestRedisKilled(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	r, seed := seeded(t)
	s := startServers(t, program)
	execute(t, s.postgres.URL(), loadTables)
	h := s.serve(t)
	h.serves(t, loadNames...)
	outages := []func(l *load){
		func(*load) { require.NoError(t, s.redis.Kill()) },
		func(*load) { require.NoError(t, s.redis.Kill()) },
		func(l *load) {
			pid := s.redis.PID()
			require.NoError(t, syscall.Kill(pid, syscall.SIGSTOP))
			l.seesOutage(t)
			require.NoError(t, syscall.Kill(pid, syscall.SIGCONT)) // what lay in its sockets is applied now
		},
		func(l *load) {
			require.NoError(t, s.redis.Kill())
			l.seesOutage(t)
		},
	}
	const portion = 12_000
	rows := int64(len(outages)+1) * portion
	l := newLoad(t, rows, func() string { return h.api })
	l.start(seed)
	for i, outage := range outages {
		l.allow(int64(i+2) * portion)
		least := l.done.Load() + r.Int64N(portion/2)
		await(t, "rows", l.ackedAtLeast(least))
		outage(l)
		if s.redis.PID() == 0 {
			require.NoError(t, s.redis.Restart(t.Context()))
		}
	}
	l.wait()
	l.only("202", "207", "207 outcome_unknown", "207 buffer_unavailable", "504 outcome_unknown", "503 buffer_unavailable")
	h.settled(t)
	l.arrived(t, s.postgres.URL())
}

// seesOutage waits until a client was told that Redis is away.
func (l *load) seesOutage(t *testing.T) {
	t.Helper()
	kinds := []string{"504 outcome_unknown", "503 buffer_unavailable"}
	before := l.answers(kinds...)
	await(t, "an answer 503 or 504", func() bool { return l.answers(kinds...) > before })
}
