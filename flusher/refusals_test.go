package flusher

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// batchOf gives how many of a batch's rows may be refused, up to most.
func (r *refusals) batchOf(limit, rows, most int, now time.Time) (allowed int, err error) {
	for n := 1; n <= most; n++ {
		if err := r.check(limit, refused{table: "t", count: n, rows: rows, why: "23514 t_v_check"}, now); err != nil {
			return n - 1, err
		}
	}
	return most, nil
}

// TestFewRefusalsNeverHalt: one row in 10,000, at any speed; and small batches.
func TestFewRefusalsNeverHalt(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ rows, dead, each int }{{10_000, 1, 100}, {50_000, 5, 20}, {100, 1, 1000}, {1, 1, 1000}} {
		r, now := refusals{}, epoch
		for range 1000 {
			allowed, err := r.batchOf(100, c.rows, c.dead, now)
			require.NoError(t, err, "%+v", c)
			require.Equal(t, c.dead, allowed)
			r.committed(c.rows, c.dead, now)
			now = now.Add(time.Duration(c.each) * time.Millisecond)
		}
	}
}

// TestManyRefusalsHalt: above the limit and above 1 %, whether in one batch or in
// several. Probes find few rows; the table goes on when less is refused.
func TestManyRefusalsHalt(t *testing.T) {
	t.Parallel()
	var r refusals
	now := epoch
	allowed, err := r.batchOf(100, 5000, 5000, now)
	require.Equal(t, 100, allowed)
	require.Equal(t, Poison, ClassOf(err))
	require.EqualError(t, err, "101 of 5000 rows of table t were refused within a minute, the last with 23514 t_v_check: "+
		"that is more than poison_limit (100, or 1 %), so the table is halted instead of filling the dead letters; nothing is lost. "+
		"Mend what refuses the rows and it goes on by itself, or raise poison_limit")

	for range 5 { // probes
		now = now.Add(3 * time.Second)
		allowed, err = r.batchOf(100, 500, 500, now)
		require.Error(t, err)
		require.Equal(t, probeRefusals, allowed)
	}
	now = epoch.Add(time.Minute)
	allowed, err = r.batchOf(100, 500, 500, now)
	require.Error(t, err)
	require.Equal(t, 100, allowed, "once in a minute")
	now = now.Add(3 * time.Second)
	allowed, err = r.batchOf(100, 500, 5, now)
	require.NoError(t, err)
	require.Equal(t, 5, allowed)
	r.committed(500, 5, now)
	allowed, err = r.batchOf(100, 500, 500, now)
	require.Error(t, err)
	require.Equal(t, 95, allowed, "it went on, and the minute counts")

	r, now = refusals{}, epoch // several batches
	for range 2 {
		allowed, err = r.batchOf(100, 50, 50, now)
		require.NoError(t, err)
		require.Equal(t, 50, allowed)
		r.committed(50, 50, now)
		now = now.Add(time.Second)
	}
	_, err = r.batchOf(100, 50, 50, now)
	require.Error(t, err)
	now = now.Add(80 * time.Second)
	_, err = r.batchOf(100, 50, 50, now)
	require.NoError(t, err, "that was long ago")

	r = refusals{} // 1 % of much is more than the limit
	allowed, err = r.batchOf(100, 50_000, 1000, epoch)
	require.Error(t, err)
	require.Equal(t, 500, allowed)
	require.NoError(t, r.check(0, refused{count: 1_000_000, rows: 1_000_000}, epoch), "0: no limit")
}

// TestRefusalsForget after a minute and a bit, and after a long silence.
func TestRefusalsForget(t *testing.T) {
	t.Parallel()
	var r refusals
	r.committed(1000, 70, epoch)
	for after, want := range map[time.Duration]int{0: 70, 59 * time.Second: 70, 71 * time.Second: 0, 24 * time.Hour: 0} {
		at := r
		_, dead := at.sum(epoch.Add(after))
		require.Equal(t, want, dead, after)
	}
}
