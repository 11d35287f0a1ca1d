package api

import (
	"sync"
	"sync/atomic"
	"time"
)

// cacheStats is what the reads of one table's rows by key came to in this
// process. Safe for concurrent use.
type cacheStats struct {
	hits      outcomeStats // answered from Redis: a pending row, a clean one, or that there is none
	misses    outcomeStats // Postgres was asked, by this request or by the one that it waited for; or it was not to be
	pending   atomic.Int64 // of the hits: rows of the log that were not committed
	negative  atomic.Int64 // of the hits: it was remembered that there is no row
	stale     atomic.Int64 // of the hits: the row's time had ended, and it was loaded again meanwhile
	bypassed  atomic.Int64 // of the misses: Redis could not be asked
	collapsed atomic.Int64 // of the misses: they waited for the load of another request
	refreshed atomic.Int64 // rows that were loaded again in the background, before their end or after it

	listHits, listMisses   atomic.Int64
	invalidated, keptDirty atomic.Int64 // by this process
}

// readOutcome is what one read came to. A read that is no hit is a miss.
type readOutcome struct {
	hit       bool // answered from Redis at once
	pending   bool
	negative  bool
	stale     bool
	bypassed  bool
	collapsed bool
}

// add counts a read.
func (s *cacheStats) add(g *reading, took time.Duration) {
	if !g.hit || g.collapsed {
		s.misses.add(took)
		count(&s.collapsed, g.collapsed)
		count(&s.bypassed, g.bypassed)
		return
	}
	s.hits.add(took)
	count(&s.pending, g.pending)
	count(&s.negative, g.negative)
	count(&s.stale, g.stale)
}

func count(n *atomic.Int64, is bool) {
	if is {
		n.Add(1)
	}
}

// outcomeStats counts reads, and how long they took.
type outcomeStats struct{ count, nanos atomic.Int64 }

func (o *outcomeStats) add(took time.Duration) {
	o.count.Add(1)
	o.nanos.Add(int64(took))
}

// mean time of a read, 0 when there was none.
func (o *outcomeStats) mean() time.Duration {
	n := o.count.Load()
	if n == 0 {
		return 0
	}
	return time.Duration(o.nanos.Load() / n)
}

// statsByTable keeps them beyond changes of the catalog.
type statsByTable struct{ m sync.Map }

func (s *statsByTable) of(table string) *cacheStats {
	if got, ok := s.m.Load(table); ok {
		return got.(*cacheStats) //nolint:forcetypeassert // nothing else is stored
	}
	got, _ := s.m.LoadOrStore(table, &cacheStats{})
	return got.(*cacheStats) //nolint:forcetypeassert // nothing else is stored
}
