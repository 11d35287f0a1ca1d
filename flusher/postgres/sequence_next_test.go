package postgres

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/headpond/headpond/buffer/table"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/cmd/headpond/up/uptest"
)

// counter plays a Postgres that takes delay to answer.
type counter struct {
	next    atomic.Int64
	calls   atomic.Int64
	at      atomic.Int64 // calls under way
	down    atomic.Bool
	delay   time.Duration
	overlap atomic.Bool
}

var errDown = errors.New("down")

func (c *counter) reserve(ctx context.Context, n int) ([]int64, error) {
	c.calls.Add(1)
	if c.at.Add(1) > 1 {
		c.overlap.Store(true)
	}
	defer c.at.Add(-1)
	select {
	case <-time.After(c.delay):
	case <-ctx.Done():
		return nil, storeError("reserve", ctx.Err())
	}
	if c.down.Load() {
		return nil, storeError("reserve", errDown)
	}
	ids := make([]int64, n)
	for i := range ids {
		ids[i] = c.next.Add(1)
	}
	return ids, nil
}

func TestSequenceHandsOutFromMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{delay: time.Millisecond}
		s := newSequence(c.reserve, 500_000, time.Now)
		defer s.Close()
		ids, err := s.Next(t.Context(), 3)
		require.NoError(t, err)
		require.Equal(t, []int64{1, 2, 3}, ids)
		synctest.Wait()
		calls := c.calls.Load()
		for range 100 {
			_, err := s.Next(t.Context(), 1)
			require.NoError(t, err)
		}
		require.Equal(t, calls, c.calls.Load())
		ids, err = s.Next(t.Context(), 0)
		require.NoError(t, err)
		require.Empty(t, ids)
	})
}

func TestSequenceRefillsOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{delay: 5 * time.Millisecond}
		s := newSequence(c.reserve, 10_000, time.Now)
		defer s.Close()
		var mu sync.Mutex
		var all []int64
		var wg sync.WaitGroup
		for range 64 {
			wg.Go(func() {
				for range 50 {
					ids, err := s.Next(t.Context(), 7)
					if err == nil {
						mu.Lock()
						all = append(all, ids...)
						mu.Unlock()
					}
				}
			})
		}
		wg.Wait()
		requireDistinct(t, all, 64*50*7)
		require.False(t, c.overlap.Load())
	})
}

// A minute without Postgres at the recent rate is a minute without an error.
func TestSequenceOutlastsAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{delay: 10 * time.Millisecond}
		s := newSequence(c.reserve, 500_000, time.Now)
		defer s.Close()
		run := func(seconds int) (err error) {
			for range seconds * 10 {
				time.Sleep(100 * time.Millisecond) // the bubble's clock
				if _, err = s.Next(t.Context(), 500); err != nil {
					return err
				}
			}
			return nil
		}
		require.NoError(t, run(30)) // 5,000 a second
		c.down.Store(true)
		require.NoError(t, run(59))
		err := run(60)
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, errDown)
		c.down.Store(false)
		time.Sleep(2 * refillPause)
		require.NoError(t, run(5))
	})
}

func TestSequenceHoldsNoMoreThanItsCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for most, want := range map[int]int{100: 100, 10_000: 10_000, 500_000: 500_000} {
			c := &counter{}
			s := newSequence(c.reserve, most, time.Now)
			for range 20 {
				_, err := s.Next(t.Context(), 2*most)
				require.NoError(t, err)
				time.Sleep(10 * time.Millisecond)
			}
			synctest.Wait()
			require.LessOrEqual(t, len(s.ids), want)
			require.Greater(t, len(s.ids), want/2)
			s.Close()
		}
	})
}

func TestSequenceNeedsLittleAtRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{}
		s := newSequence(c.reserve, 500_000, time.Now)
		defer s.Close()
		for range 600 {
			_, err := s.Next(t.Context(), 1)
			require.NoError(t, err)
			time.Sleep(time.Second)
		}
		require.LessOrEqual(t, c.calls.Load(), int64(5))
		require.GreaterOrEqual(t, len(s.ids), reserveMin-1)
	})
}

func TestSequenceWaiterGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{delay: time.Hour}
		s := newSequence(c.reserve, 1000, time.Now)
		defer s.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.Next(ctx, 1)
		require.ErrorIs(t, err, ErrUnavailable)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Zero(t, s.wanted)
	})
}

func TestSequenceClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &counter{delay: time.Hour}
		s := newSequence(c.reserve, 1000, time.Now)
		failed := make(chan error, 1)
		go func() { _, err := s.Next(t.Context(), 1); failed <- err }()
		synctest.Wait()
		s.Close()
		require.Error(t, <-failed)
		_, err := s.Next(t.Context(), 1)
		require.ErrorIs(t, err, ErrUnavailable)
		s.Close()
	})
}

// A real server goes away and comes back: no error while the reserve lasts, a
// plain one after that, and no restart of anything needed to go on.
func TestOutageAndRecovery(t *testing.T) {
	t.Parallel()
	server := uptest.Postgres(t)
	pool := openURL(t, server.URL(), `create table t (id int primary key, v inet); create sequence s; insert into t values (1, '::1')`)
	e, tbl := NewEdge(pool), loadTables(t, pool)["t"]
	s := e.NewSequence("public.s", 10_000)
	defer s.Close()
	_, err := s.Next(t.Context(), 1)
	require.NoError(t, err)
	item := []table.JudgeItem{{Type: tbl.Columns[1].Type, JSON: []byte(`"::1"`)}}

	require.NoError(t, server.Kill())
	require.Eventually(t, func() bool { return pool.Ping(t.Context()) != nil }, 10*time.Second, time.Millisecond,
		"a backend outlives its postmaster for a moment")
	_, err = s.Next(t.Context(), 900)
	require.NoError(t, err, "from memory")
	_, err = s.Next(t.Context(), 9000)
	require.ErrorIs(t, err, ErrUnavailable)
	_, err = e.Judge(t.Context(), item)
	require.ErrorIs(t, err, ErrUnavailable)
	_, _, err = e.LoadRow(t.Context(), tbl, cells("1"))
	require.ErrorIs(t, err, ErrUnavailable)
	_, err = LoadCatalog(t.Context(), pool, Selection{Expose: []string{"public.*"}})
	require.ErrorIs(t, err, ErrUnavailable)
	_, err = NewCatalog(pool, Selection{}).Version(t.Context())
	require.ErrorIs(t, err, ErrUnavailable)

	require.NoError(t, server.Restart(t.Context()))
	_, err = e.Judge(t.Context(), item)
	require.NoError(t, err)
	_, found, err := e.LoadRow(t.Context(), tbl, cells("1"))
	require.NoError(t, err)
	require.True(t, found)
	require.Eventually(t, func() bool { _, err := s.Next(t.Context(), 5000); return err == nil }, 10*time.Second, 20*time.Millisecond)
}

// After a restart every pooled connection is dead, and none of them may show.
func TestEdgeShedsDeadConnections(t *testing.T) {
	t.Parallel()
	server := uptest.Postgres(t)
	pool := openURL(t, server.URL(), `create sequence s`)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() { _, _ = pool.Exec(t.Context(), `select pg_sleep(0.2)`) })
	}
	wg.Wait()
	require.Equal(t, int32(3), pool.Stat().TotalConns())
	require.NoError(t, server.Restart(t.Context()))
	_, err := NewEdge(pool).Reserve(t.Context(), "public.s", 1)
	require.NoError(t, err)
}
