package flusher

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var epoch = time.Unix(1_700_000_000, 0)

func twoTables() *schedule {
	s := newSchedule(whole)
	for _, name := range []string{"a", "b"} {
		s.set(Table{Name: name, Partitions: 4, Linger: 50 * time.Millisecond, TargetLag: 500 * time.Millisecond})
	}
	return s
}

func TestScheduleWaitsForLinger(t *testing.T) {
	t.Parallel()
	s := twoTables()
	j, at := s.next(epoch)
	require.Nil(t, j)
	require.True(t, at.IsZero())

	s.notice("a", 1, 0, epoch)
	j, at = s.next(epoch)
	require.Nil(t, j)
	require.Equal(t, epoch.Add(50*time.Millisecond), at)

	s.notice("a", 2, 0, epoch.Add(40*time.Millisecond))
	j, _ = s.next(epoch.Add(50 * time.Millisecond))
	require.Equal(t, []int{1, 2}, j.partitions, "company comes along though it is not due")
}

func TestScheduleFullBatchDoesNotWait(t *testing.T) {
	t.Parallel()
	s := twoTables()
	s.notice("a", 0, 1_000_000, epoch)
	s.notice("a", 1, 1_000_000, epoch)
	j, _ := s.next(epoch)
	require.Equal(t, []int{0}, j.partitions, "one partition fills the batch")
	other, _ := s.next(epoch)
	require.Equal(t, []int{1}, other.partitions, "the other goes to another worker")
}

func TestScheduleNeverRunsAPartitionTwice(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := twoTables()
		now := epoch
		running := map[string]bool{}
		var jobs []*job
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "do") {
			case 0:
				s.notice(rapid.SampledFrom([]string{"a", "b", "gone"}).Draw(t, "table"), rapid.IntRange(0, 3).Draw(t, "partition"),
					rapid.Int64Range(0, 30_000).Draw(t, "backlog"), now)
			case 1:
				now = now.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "ms")) * time.Millisecond)
			case 2:
				if j, _ := s.next(now); j != nil {
					for _, p := range j.partitions {
						key := fmt.Sprint(j.table.Name, p)
						if running[key] {
							t.Fatalf("%s runs twice", key)
						}
						running[key] = true
					}
					jobs = append(jobs, j)
				}
			case 3:
				if len(jobs) == 0 {
					continue
				}
				j := jobs[0]
				jobs = jobs[1:]
				for _, p := range j.partitions {
					delete(running, fmt.Sprint(j.table.Name, p))
				}
				var err error
				if rapid.Bool().Draw(t, "fails") {
					err = errors.New("trouble")
				}
				s.done(j, map[int]left{}, 10, 0, time.Millisecond, err, now)
			}
		}
	})
}

func TestScheduleForgetsNothing(t *testing.T) {
	t.Parallel()
	s := twoTables()
	s.notice("a", 0, 5, epoch)
	now := epoch.Add(time.Second)
	j, _ := s.next(now)
	s.notice("a", 0, 0, now) // while it runs
	s.done(j, map[int]left{0: {}}, 5, 0, time.Millisecond, nil, now)
	require.False(t, s.idle(), "the notice came while the batch was running: look again")
	j, _ = s.next(now.Add(time.Second))
	s.done(j, map[int]left{0: {}}, 0, 0, time.Millisecond, nil, now)
	require.True(t, s.idle())

	s.notice("a", 1, 5, now)
	j, _ = s.next(now.Add(time.Second))
	s.done(j, map[int]left{1: {backlog: 5, busy: true}}, 0, 0, time.Millisecond, nil, now)
	require.False(t, s.idle(), "somebody else holds it, and may die")
}

// What may pass by itself may also be the fault of one partition's rows.
func TestTroubleNamesThePartition(t *testing.T) {
	t.Parallel()
	s := twoTables()
	fail := func() string {
		at := epoch.Add(time.Hour)
		j, _ := s.next(at)
		s.done(j, nil, 0, 0, time.Millisecond, errors.New("custom (SQLSTATE 53100)"), at)
		s.tables["a"].trouble.until = epoch
		return s.tables["a"].trouble.text()
	}
	s.notice("a", 2, 5, epoch)
	require.Equal(t, "custom (SQLSTATE 53100) (partition 2 was tried)", fail())
	s.notice("a", 3, 5, epoch)
	require.Equal(t, "custom (SQLSTATE 53100)", fail())
}

func TestTroubleStaysInItsTable(t *testing.T) {
	t.Parallel()
	s := twoTables()
	s.set(Table{Name: "b", Partitions: 1, Linger: time.Millisecond, TargetLag: time.Second})
	now := epoch
	s.notice("a", 0, 5, now)
	now = now.Add(time.Second)
	j, _ := s.next(now)
	var pauses []time.Duration
	for range 10 {
		s.done(j, nil, 0, 0, time.Millisecond, errors.New("halted"), now)
		pauses = append(pauses, s.tables["a"].trouble.pause)
		s.notice("b", 0, 5, now)
		now = now.Add(time.Millisecond)
		b, _ := s.next(now)
		require.NotNil(t, b)
		require.Equal(t, "b", b.table.Name, "b is not delayed by a")
		s.done(b, map[int]left{0: {}}, 5, 0, time.Millisecond, nil, now)
		none, at := s.next(now)
		require.Nil(t, none, "a pauses")
		now = at
		j, _ = s.next(now)
		require.Equal(t, "a", j.table.Name, "and is tried again")
	}
	require.IsIncreasing(t, pauses[:5])
	require.Equal(t, mostPause, pauses[9])
	s.done(j, map[int]left{0: {}}, 5, 0, time.Millisecond, nil, now)
	require.NoError(t, s.tables["a"].trouble.err)
}

func TestSizerFitsTheTarget(t *testing.T) {
	t.Parallel()
	s := newSizer(500 * time.Millisecond)
	for range 20 { // 100,000 rows a second: 25,000 in a quarter of one
		s.flushed(s.rows, time.Duration(s.rows)*10*time.Microsecond)
	}
	require.InDelta(t, 25_000, s.rows, 500)
	for range 20 { // 1,000 rows a second
		s.flushed(s.rows, time.Duration(s.rows)*time.Millisecond)
	}
	require.Equal(t, minBatch, s.rows)
	s.flushed(1, time.Hour)
	require.Equal(t, minBatch, s.rows, "a small batch says nothing")
}

// Somebody else may hold a partition for long, and its backlog be large: it is
// looked at again, but not in a loop.
func TestScheduleDoesNotSpinOnABusyPartition(t *testing.T) {
	t.Parallel()
	s := twoTables()
	s.set(Table{Name: "a", Partitions: 1, Linger: time.Nanosecond, TargetLag: time.Second})
	now := epoch
	s.notice("a", 0, 1_000_000, now)
	j, _ := s.next(now)
	require.NotNil(t, j)
	s.done(j, map[int]left{0: {backlog: 1_000_000, busy: true}}, 0, 0, time.Millisecond, nil, now)
	s.notice("a", 0, 1_000_000, now) // the sweep
	j, at := s.next(now)
	require.Nil(t, j)
	require.Equal(t, now.Add(busyPause), at)
	j, _ = s.next(at)
	require.NotNil(t, j)
}

// TestPatienceWhereRowsMerge: a table whose rows are merged waits for more of
// them, and no longer than half of its target lag.
func TestPatienceWhereRowsMerge(t *testing.T) {
	now := time.Now()
	s := newSchedule(whole)
	s.set(Table{Name: "t", Partitions: 1, Linger: 50 * time.Millisecond, TargetLag: 500 * time.Millisecond})
	due := func() time.Duration {
		_, at := s.next(now)
		return at.Sub(now)
	}
	round := func(merged int) {
		s.notice("t", 0, 1, now)
		j, _ := s.next(now.Add(time.Second))
		s.done(j, map[int]left{0: {}}, 100, merged, time.Millisecond, nil, now)
	}
	s.notice("t", 0, 1, now)
	require.Equal(t, 50*time.Millisecond, due())
	round(90)
	s.notice("t", 0, 1, now)
	require.Equal(t, 250*time.Millisecond, due())
	round(10)
	s.notice("t", 0, 1, now)
	require.Equal(t, 50*time.Millisecond, due())
}

// whole takes nothing off a pause.
func whole() float64 { return 1 }
