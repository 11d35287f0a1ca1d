package main

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// staleWatch is what readers compare with: when each write was answered. Safe
// for concurrent use.
type staleWatch struct {
	mu       sync.Mutex
	answered []time.Time // of the write that put n = index; n = 0 was there before
	window   time.Duration
	seen     int64 // reads
}

func newStaleWatch() *staleWatch { return &staleWatch{answered: []time.Time{{}}} }

// wrote notes that the next write was answered.
func (s *staleWatch) wrote(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answered = append(s.answered, at)
}

// read notes what a read that began at a time saw. It was stale when the write
// of the next n was answered before.
func (s *staleWatch) read(began time.Time, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen++
	if n+1 < int64(len(s.answered)) {
		s.window = max(s.window, began.Sub(s.answered[n+1]))
	}
}

const (
	staleReaders = 3
	staleRow     = 1
	staleReads   = time.Millisecond       // between two reads of a reader
	staleWrites  = 100 * time.Millisecond // between two writes
)

// staleness measures how old a row is at most that readers still see: all
// patterns at once, since each does next to nothing.
func (b *cacheBench) staleness(ctx context.Context, patterns []*cachePattern) error {
	var g errgroup.Group
	for _, p := range patterns {
		g.Go(func() error {
			window, err := b.stalenessOf(ctx, p)
			if err != nil {
				return b.fails(p, err)
			}
			b.results.add(p.key+"_stale", window.Seconds()*1000)
			return nil
		})
	}
	return g.Wait()
}

func (b *cacheBench) stalenessOf(ctx context.Context, p *cachePattern) (time.Duration, error) {
	clients, end, err := b.lab.clients(ctx, p, 1+staleReaders)
	if err != nil {
		return 0, err
	}
	defer end()
	for _, c := range clients {
		c.table = p.staleTable()
	}
	if err := clients[0].write(ctx, staleRow, 0); err != nil {
		return 0, err
	}
	if err := b.flushed(clients[0]); err != nil {
		return 0, err
	}
	watch := newStaleWatch()
	var ended atomic.Bool
	err = together(clients, func(i int, c *cacheClient) error {
		if i == 0 {
			defer ended.Store(true)
			return b.staleWriter(ctx, c, watch)
		}
		for ctx.Err() == nil && !ended.Load() {
			began := time.Now()
			n, _, err := c.read(ctx, staleRow)
			if err != nil {
				return err
			}
			watch.read(began, n)
			pause(ctx, staleReads)
		}
		return ctx.Err()
	})
	return watch.window, err
}

// staleWriter writes at intervals that keep no step with anything.
func (b *cacheBench) staleWriter(ctx context.Context, c *cacheClient, watch *staleWatch) error {
	end := time.Now().Add(b.stale)
	for n := int64(1); time.Now().Before(end) && ctx.Err() == nil; n++ {
		if err := c.write(ctx, staleRow, n); err != nil {
			return err
		}
		watch.wrote(time.Now())
		pause(ctx, staleWrites+time.Duration(n*7%41)*time.Millisecond)
	}
	return ctx.Err()
}
