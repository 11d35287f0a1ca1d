package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
)

// loseDisk kills Redis and takes away all that it had.
func (s *servers) loseDisk(t *testing.T) {
	t.Helper()
	require.NoError(t, s.redis.Kill())
	for _, name := range []string{"appendonlydir", "dump.rdb"} {
		require.NoError(t, os.RemoveAll(filepath.Join(s.redis.Dir(), name)))
	}
}

// holdTables keeps the flush from writing the tables of the load.
func holdTables(t *testing.T, database string) (goOn func()) {
	t.Helper()
	conn := connect(t, database)
	_, err := conn.Exec(t.Context(), "begin; lock table "+strings.Join(loadNames, ", ")+" in access exclusive mode")
	require.NoError(t, err)
	return func() {
		_, err := conn.Exec(t.Context(), "rollback")
		require.NoError(t, err)
	}
}

// recovered sums what epochs began with.
func recovered(t *testing.T, database string) (replayed, lost int64) {
	t.Helper()
	return value[int64](t, database, `select coalesce(sum(replayed), 0)::bigint from headpond.epochs`),
		value[int64](t, database, `select coalesce(sum(lost), 0)::bigint from headpond.epochs`)
}

// TestRedisDiskLost: Redis loses its disk under load, again and again, while
// its tables are locked, so that much is pending. Two API processes hold
// what they acknowledged, and nothing is lost or there twice.
func TestRedisDiskLost(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	r, seed := seeded(t)
	s := startServers(t, program)
	execute(t, s.postgres.URL(), loadTables)
	apis := []*headpond{s.serve(t), s.serve(t)}
	var turn atomic.Int64
	for _, h := range apis {
		h.serves(t, loadNames...)
	}
	const rounds, portion = 3, 12_000
	l := newLoad(t, (rounds+1)*portion, func() string { return apis[turn.Add(1)%2].api })
	l.start(seed)
	for i := range rounds {
		least := l.done.Load() + r.Int64N(portion/4) + portion/4
		goOn := holdTables(t, s.postgres.URL()) // so that all of it is pending
		l.allow(int64(i+1) * portion)
		await(t, "rows", l.ackedAtLeast(least))
		s.loseDisk(t)
		require.NoError(t, s.redis.Restart(t.Context()))
		goOn()
	}
	l.allow(l.total)
	l.wait()
	l.only("202", "207", "207 outcome_unknown", "207 buffer_unavailable", "504 outcome_unknown", "503 buffer_unavailable")
	apis[0].settled(t)
	l.arrived(t, s.postgres.URL())
	replayed, lost := recovered(t, s.postgres.URL())
	require.Zero(t, lost)
	require.Greater(t, replayed, int64(rounds*portion/4))
}

// TestBothLost: Redis loses its disk and the process that accepted the rows is
// killed. Exactly those rows are reported as lost that its clients miss.
func TestBothLost(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	_, seed := seeded(t)
	s := startServers(t, program)
	execute(t, s.postgres.URL(), loadTables)
	h := s.serve(t)
	other := s.serve(t)
	for _, h := range []*headpond{h, other} {
		h.serves(t, loadNames...)
	}
	var turn atomic.Int64
	url := func() string { return []*headpond{h, h, other}[turn.Add(1)%3].api }
	l := newLoad(t, 40_000, url)
	l.start(seed)
	l.allow(10_000)
	await(t, "rows", l.ackedAtLeast(10_000))
	goOn := holdTables(t, s.postgres.URL())
	l.allow(l.total)
	l.wait() // each has its answer
	l.only("202")
	h.kill()
	s.loseDisk(t)
	goOn()
	require.NoError(t, s.redis.Restart(t.Context()))
	h = s.serve(t)
	await(t, "every partition to be open again", func() bool { // before that nobody knows what it lacks
		return value[bool](t, s.postgres.URL(), `select (select count(*) from headpond.epochs where epoch > 1 and recorded_at is not null) = (select count(*) from headpond.watermarks)`)
	})
	await(t, "what is left to be committed", func() bool {
		l := h.status(t).Ledger
		return l.Pending == 0 && l.Accepted == l.Committed+l.Coalesced+l.Dead+l.Lost && l.Lost > 0
	})

	var missing int64
	for _, table := range loadNames {
		rows := readLoad(t, s.postgres.URL(), table)
		for n, o := range l.outcomes[table] {
			if _, there := rows[n]; o == acked && !there {
				missing++
			}
		}
		for n, row := range rows {
			require.EqualValues(t, 1, row.times, n)
		}
	}
	_, lost := recovered(t, s.postgres.URL())
	require.Equal(t, missing, lost)
	require.Equal(t, missing, value[int64](t, s.postgres.URL(), `select sum(lost)::bigint from headpond.watermarks`))
	require.Equal(t, missing, h.status(t).Ledger.Lost)
	require.Greater(t, missing, int64(5_000), "too little was lost for the test to mean anything")
	t.Logf("%d rows lost, each of them counted", missing)
}
