package api_test

import (
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer/table"
)

// TestInvalidateWhileReading: while a pattern is walked over many cached rows,
// reads go on. It prints how long they take meanwhile, and when nothing else goes
// on. HEADPOND_LONG=1 makes it a million rows.
func TestInvalidateWhileReading(t *testing.T) {
	rows := 20_000
	if os.Getenv("HEADPOND_LONG") != "" {
		rows = 1_000_000
	}
	s := setupWith(t, `create table hot (id int primary key, v int); insert into hot select i, i from generate_series(1, 100) i;
		create table cold (id int primary key, v int); insert into cold values (1, 1)`, options{ttl: time.Hour})
	for i := 1; i <= 100; i++ {
		s.get(s.path("hot", strconv.Itoa(i)))
	}
	s.cacheMany("cold", rows)

	var stop atomic.Bool
	var mu sync.Mutex
	var took []time.Duration
	var readers sync.WaitGroup
	for r := range 8 {
		readers.Go(func() {
			for i := r; !stop.Load(); i += 8 {
				began := time.Now()
				a, err := s.client.Get(s.url + s.path("hot", strconv.Itoa(i%100+1)))
				if err != nil || a.StatusCode != http.StatusOK {
					t.Errorf("%v %v", a, err)
					return
				}
				_ = a.Body.Close()
				mu.Lock()
				took = append(took, time.Since(began))
				mu.Unlock()
			}
		})
	}
	measure := func(until func() bool) (n int, p50, p99 time.Duration) {
		mu.Lock()
		took = nil
		mu.Unlock()
		require.Eventually(t, until, 5*time.Minute, 5*time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		all := slices.Sorted(slices.Values(took))
		return len(all), all[len(all)/2], all[len(all)*99/100]
	}
	for range 2 {
		began := time.Now()
		n, p50, p99 := measure(func() bool { return time.Since(began) > time.Second })
		t.Logf("nothing else: %d reads, p50 %s, p99 %s", n, p50, p99)
		done := make(chan invalidatedJSON, 1)
		began = time.Now()
		go func() { done <- s.invalidate("?pattern=" + s.schema + ".cold:1*") }()
		var got invalidatedJSON
		n, p50, p99 = measure(func() bool {
			select {
			case got = <-done:
				return true
			default:
				return false
			}
		})
		t.Logf("invalidating %d of %d rows in %s: %d reads, p50 %s, p99 %s", got.Invalidated, rows, time.Since(began).Round(time.Millisecond), n, p50, p99)
		require.Equal(t, ones(rows), got.Invalidated)
		s.cacheMany("cold", rows)
	}
	stop.Store(true)
	readers.Wait()
	require.EqualValues(t, 103, s.edge.loads.Load(), "the rows that were read stayed: but for these hundred, one row was loaded to make each of the three heaps")
}

// cacheMany puts rows straight into Redis, as they lie there once they were
// loaded.
func (s *stack) cacheMany(tbl string, rows int) {
	s.t.Helper()
	s.get(s.path(tbl, "1"))
	name := s.schema + "." + tbl
	row := func(id int) string {
		key := strconv.Itoa(id)
		return fmt.Sprintf("hp:{%s.%d}:row:%s", name, table.Partition([]byte(key), s.o.partitions), key)
	}
	value, err := s.rdb.Get(s.t.Context(), row(1)).Result()
	require.NoError(s.t, err)
	for from := 1; from <= rows; from += 10_000 {
		_, err := s.rdb.Pipelined(s.t.Context(), func(p redis.Pipeliner) error {
			for id := from; id < from+10_000 && id <= rows; id++ {
				p.Set(s.t.Context(), row(id), value, time.Hour)
			}
			return nil
		})
		require.NoError(s.t, err)
	}
}

// ones is how many of the numbers from 1 to n begin with a 1.
func ones(n int) (count int) {
	for low := 1; low <= n; low *= 10 {
		count += min(n, 2*low-1) - low + 1
	}
	return count
}
