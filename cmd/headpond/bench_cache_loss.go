package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	lossClients = 16
	lossMark    = 1_000_000_007 // no other write puts this n
)

// loss measures what is gone when Redis dies with its disk: rows are written as
// fast as it goes, each once, and Redis is killed in the middle of it and
// started again with nothing. Lost is a write that was answered and that
// Postgres does not have when Headpond has had its time.
func (b *cacheBench) loss(ctx context.Context, patterns []*cachePattern) error {
	var running []*lossRun
	defer func() {
		for _, r := range running {
			r.end()
		}
	}()
	for _, p := range patterns {
		clients, end, err := b.lab.clients(ctx, p, lossClients)
		if err != nil {
			return err
		}
		r := &lossRun{cachePattern: p, end: end, done: make(chan struct{}), answered: make([][]int64, lossClients)}
		running = append(running, r)
		go r.write(ctx, clients, b.rows)
	}
	pause(ctx, b.lossy)
	began := time.Now()
	if err := b.lab.loseRedis(ctx); err != nil {
		return err
	}
	for _, r := range running {
		r.stop.Store(true)
		r.end() // a write that Headpond holds back until it hears from Redis was not answered
		<-r.done
	}
	for _, r := range running {
		if err := b.count(ctx, r, began); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// lossRun is the load of one pattern. answered are the keys of each client.
type lossRun struct {
	*cachePattern

	end      func()
	stop     atomic.Bool
	done     chan struct{}
	answered [][]int64
}

// write ends each client at its first error: Redis died.
func (r *lossRun) write(ctx context.Context, clients []*cacheClient, rows int64) {
	defer close(r.done)
	var next atomic.Int64
	_ = together(clients, func(i int, c *cacheClient) error {
		for !r.stop.Load() && ctx.Err() == nil {
			key := next.Add(1)
			if key > rows {
				return nil
			}
			if err := c.write(ctx, key, lossMark); err != nil {
				return err
			}
			r.answered[i] = append(r.answered[i], key)
		}
		return nil
	})
}

// lossPatience is how long Headpond has to bring to Postgres what it still
// knows of.
const lossPatience = 10 * time.Second

// count waits until no more of the missing rows appear.
func (b *cacheBench) count(ctx context.Context, r *lossRun, died time.Time) error {
	var keys []int64
	for _, k := range r.answered {
		keys = append(keys, k...)
	}
	var missing, before int64 = 0, -1
	for quiet := time.Now(); time.Since(died) < lossPatience && time.Since(quiet) < 2*time.Second; pause(ctx, 50*time.Millisecond) {
		err := b.lab.stack.pool.QueryRow(ctx, "select count(*) from "+r.table()+" where id = any($1) and n <> $2", keys, lossMark).Scan(&missing)
		if err != nil {
			return fmt.Errorf("count rows: %w", err)
		}
		if missing == 0 {
			break
		}
		if missing != before {
			before, quiet = missing, time.Now()
		}
	}
	b.results.add(r.key+"_lost", float64(missing))
	b.results.add(r.key+"_lost_of", float64(len(keys)))
	return nil
}
