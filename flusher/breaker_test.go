package flusher

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/headpond/headpond/buffer"
)

// classed is an error of a Store.
type classed struct{ class Class }

func (e *classed) Error() string { return "error of class " + string(e.class) }
func (e *classed) Class() Class  { return e.class }

func manyTables(n int) *schedule {
	s := newSchedule(whole)
	for i := range n {
		s.set(Table{Name: fmt.Sprintf("t%03d", i), Partitions: 2, Linger: time.Millisecond, TargetLag: time.Second})
	}
	return s
}

// noticeAll: every partition has something to flush.
func (s *schedule) noticeAll(now time.Time) {
	for name, st := range s.tables {
		for p := range st.parts {
			s.notice(name, p, 1, now)
		}
	}
}

// TestBreakerSparesAServerThatStarts: three hundred tables wait for Postgres. It
// gets a few tries a second, not hundreds, and is heard of soon when it is back.
func TestBreakerSparesAServerThatStarts(t *testing.T) {
	t.Parallel()
	s := manyTables(300)
	away := &classed{Unreachable}
	now, tries := epoch, 0
	s.noticeAll(now.Add(-time.Second))
	tried := map[string]bool{}
	for now.Before(epoch.Add(time.Minute)) {
		j, at := s.next(now)
		if j == nil {
			require.False(t, at.IsZero())
			require.True(t, at.After(now))
			now = at
			continue
		}
		tries++
		tried[j.table.Name] = true
		if s.breaker.open {
			other, at := s.next(now)
			require.Nil(t, other, "one at a time")
			require.True(t, at.IsZero(), "and nobody knows when the next is due")
			require.Equal(t, buffer.BreakerHalfOpen, s.breaker.stats(now).State)
		}
		s.done(j, nil, 0, 0, 0, away, now)
	}
	require.Less(t, tries, 40)
	require.Greater(t, len(tried), 20, "not always the same table")
	b := s.breaker.stats(now)
	require.Equal(t, buffer.Breaker{State: b.State, Since: epoch, Why: away.Error(), Next: s.breaker.until}, b)

	now = s.breaker.until
	j, _ := s.next(now)
	require.NotNil(t, j)
	s.done(j, map[int]left{0: {}, 1: {}}, 2, 0, time.Millisecond, nil, now)
	require.Equal(t, buffer.Breaker{State: buffer.BreakerClosed}, s.breaker.stats(now))
	var names []string
	for {
		j, _ := s.next(now)
		if j == nil {
			break
		}
		names = append(names, j.table.Name)
	}
	require.Len(t, names, 299, "all others at once: no pause of their own is left")
}

// TestBreakerStaysClosed for what is wrong with one table.
func TestBreakerStaysClosed(t *testing.T) {
	t.Parallel()
	for _, class := range Classes {
		s := manyTables(2)
		now := epoch
		for range 20 {
			s.notice("t000", 0, 1, now)
			now = now.Add(2 * mostPause)
			j, _ := s.next(now)
			require.NotNil(t, j, class)
			s.done(j, nil, 0, 0, 0, &classed{class}, now)
		}
		require.Equal(t, class.shared(), s.breaker.open, class)
		if !class.shared() {
			s.notice("t001", 0, 1, now)
			now = now.Add(2 * time.Millisecond)
			j, _ := s.next(now)
			require.NotNil(t, j, "the other is not delayed: %s", class)
			require.Equal(t, "t001", j.table.Name)
		}
	}
}

// TestBreakerIgnoresOldNews: batches that failed together open it once.
func TestBreakerIgnoresOldNews(t *testing.T) {
	t.Parallel()
	s := manyTables(8)
	s.noticeAll(epoch)
	now := epoch.Add(time.Second)
	var jobs []*job
	for j, _ := s.next(now); j != nil; j, _ = s.next(now) {
		jobs = append(jobs, j)
	}
	require.Len(t, jobs, 8)
	for _, j := range jobs {
		s.done(j, nil, 0, 0, 0, &classed{Unreachable}, now)
	}
	require.Equal(t, firstPause, s.breaker.pause)
	probe, _ := s.next(now.Add(firstPause))
	require.NotNil(t, probe)
	s.done(jobs[0], nil, 0, 0, 0, &classed{Unreachable}, now)
	require.Equal(t, probe, s.breaker.probe, "the probe is still under way")
	s.done(probe, nil, 0, 0, 0, &classed{Schema}, now)
	require.False(t, s.breaker.open, "a server that refuses a table is there")
}

// Whatever happens, at most one batch is under way while it is open, and a
// success closes it.
func TestBreakerProperties(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := newSchedule(func() float64 { return rapid.Float64Range(0, 1).Draw(t, "chance") })
		for i := range 5 {
			s.set(Table{Name: fmt.Sprint(i), Partitions: 2, Linger: time.Millisecond})
		}
		now := epoch
		var under []*job
		for range 200 {
			now = now.Add(time.Duration(rapid.IntRange(0, 100).Draw(t, "ms")) * time.Millisecond)
			if rapid.Bool().Draw(t, "finish") && len(under) > 0 {
				var err error
				if c := rapid.SampledFrom(append(Classes, "")).Draw(t, "class"); c != "" {
					err = &classed{c}
				}
				s.done(under[0], nil, 1, 0, 0, err, now)
				if under = under[1:]; err == nil && s.breaker.open {
					t.Fatal("open after a success")
				}
				continue
			}
			s.noticeAll(now)
			open, busy := s.breaker.open, s.breaker.probe != nil
			j, at := s.next(now)
			if j == nil {
				continue
			}
			if open && (busy || now.Before(s.breaker.until)) {
				t.Fatalf("begun while it is open: %v", at)
			}
			under = append(under, j)
		}
	})
}

// TestLocksDoNotHoldAllWorkers: what waits for a lock for seconds does so once.
func TestLocksDoNotHoldAllWorkers(t *testing.T) {
	t.Parallel()
	s := newSchedule(whole)
	s.set(Table{Name: "a", Partitions: 64, Linger: time.Millisecond, TargetLag: time.Second})
	for p := range 64 {
		s.notice("a", p, 1000, epoch)
	}
	now := epoch.Add(time.Second)
	j, _ := s.next(now)
	before := s.tables["a"].sizer.rows
	s.done(j, nil, 0, 0, 0, &classed{Contention}, now)
	require.Equal(t, firstLock, s.tables["a"].trouble.pause, "soon again")
	require.Equal(t, before/2, s.tables["a"].sizer.rows, "with a smaller batch")
	now = now.Add(time.Second)
	j, _ = s.next(now)
	require.NotNil(t, j)
	other, _ := s.next(now)
	require.Nil(t, other, "one batch of a table in trouble at a time")
	s.done(j, nil, 1, 0, 0, nil, now)
	for range 4 {
		j, _ = s.next(now)
		require.NotNil(t, j)
	}
}

func TestJitter(t *testing.T) {
	t.Parallel()
	require.Equal(t, time.Second/2, jitter(time.Second, 0))
	require.Equal(t, 3*time.Second/4, jitter(time.Second, .5))
	require.Equal(t, time.Second, jitter(time.Second, 1))
}
