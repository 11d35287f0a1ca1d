package main_test

import (
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// seeded gives a source of random choices whose seed can be set to repeat a run.
func seeded(t *testing.T) (*rand.Rand, uint64) {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if v := os.Getenv("HEADPOND_SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		require.NoError(t, err)
		seed = n
	}
	t.Logf("to choose the same again: HEADPOND_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0)), seed //nolint:gosec // no secret
}

const (
	killRows = 200_000
	kills    = 10
)

// TestFlusherKilled: ten kills at random moments of 200,000 rows, and nothing
// is lost, nothing is there twice, and nobody has to do anything.
func TestFlusherKilled(t *testing.T) { killFlushers(t, 0) }

// TestFourFlushersKilled is the same with three more flusher processes side by
// side, which are killed too.
func TestFourFlushersKilled(t *testing.T) { killFlushers(t, 3) }

func killFlushers(t *testing.T, more int) {
	program := buildProgram(t)
	t.Parallel()
	r, seed := seeded(t)
	h := startUp(t, program, "--split", "--ephemeral")
	h.create(t, loadTables, loadNames...)
	others := make([]*process, more)
	for i := range others {
		others[i] = flusher(t, program, h.database, h.redis)
	}
	l := newLoad(t, killRows, func() string { return h.api })
	l.start(seed)
	// The load is let on in portions, so that all kills fall into it, however
	// fast it is. Each kill waits for a random number of commits: so it comes
	// at any point of a flush, and sometimes before the flusher has begun.
	const portion = killRows / (kills + 1)
	last := 0
	for i := range int64(kills) {
		l.allow((i + 2) * portion)
		least := i*portion + r.Int64N(portion)
		await(t, "commits", func() bool { return committed(t, h.database) >= least })
		await(t, "a flusher to kill", func() bool {
			pid := h.status(t).Stack["flusher_pid"]
			if pid == 0 || pid == last {
				return false
			}
			last = pid
			return syscall.Kill(pid, syscall.SIGKILL) == nil
		})
		for j := range others {
			if r.IntN(2) == 0 {
				others[j].kill()
				others[j] = flusher(t, program, h.database, h.redis)
			}
		}
	}
	l.allow(killRows)
	l.wait()
	l.only("202")
	h.settled(t)
	require.GreaterOrEqual(t, l.done.Load(), int64(killRows))
	l.arrived(t, h.database)
}

// committed is how many rows the flushers have committed.
func committed(t *testing.T, database string) int64 {
	t.Helper()
	return value[int64](t, database, `select coalesce(sum(committed), 0)::bigint from headpond.watermarks`)
}
