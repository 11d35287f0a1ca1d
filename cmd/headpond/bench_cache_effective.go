package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// effective is the arithmetic of the documents: the mean latency of reads, from
// the share that hits and what a hit and a miss take.
func effective(hitRate, hit, miss float64) float64 { return hitRate*hit + (1-hitRate)*miss }

// reads measures a pattern at each hit rate, and at only hits and only misses,
// from which the others are predicted. Slices of all follow each other, so that
// a machine that gets slower for a while does so for all.
func (b *cacheBench) reads(ctx context.Context, p *cachePattern) error {
	keys := b.keys[p]
	if p.cached {
		if err := b.warmUp(ctx, p, keys.warm); err != nil {
			return fmt.Errorf("warm the cache: %w", err)
		}
	}
	// Not before: a connection that says nothing for 10 s is closed.
	clients, end, err := b.lab.clients(ctx, p, b.clients)
	if err != nil {
		return err
	}
	defer end()
	rates := append([]float64{0}, b.rates...)
	if p.cached {
		rates = append(rates, 1)
	}
	if err := b.fastMiss(ctx, p, clients, keys); err != nil {
		return err
	}
	before, err := b.ownStats(p, clients[0])
	if err != nil {
		return err
	}
	seen := make([]*readTimings, len(rates))
	for i := range rates {
		seen[i] = newReadTimings()
	}
	for slice := -1; slice < b.slices; slice++ { // the first is for warmth
		for i, rate := range rates {
			t, err := readSome(ctx, clients, keys, rate, b.readsAt(rate))
			if err != nil {
				return err
			}
			if slice >= 0 {
				seen[i].merge(t)
			}
		}
	}
	b.keep(p, seen)
	after, err := b.ownStats(p, clients[0])
	b.keepOwn(p, before, after)
	return err
}

// warmUp reads the hot rows once, with more clients: it is not measured.
func (b *cacheBench) warmUp(ctx context.Context, p *cachePattern, rows int64) error {
	clients, end, err := b.lab.clients(ctx, p, 16)
	if err != nil {
		return err
	}
	defer end()
	return readEach(ctx, clients, 1, rows)
}

// ownStats is what Headpond counted of a table's reads.
type ownStats struct {
	Hits, Misses float64
	HitMS        float64 `json:"hit_ms"`
	MissMS       float64 `json:"miss_ms"`
}

// ownStats asks for them. Of rows that clients load themselves it sees only the
// hits.
func (b *cacheBench) ownStats(p *cachePattern, c *cacheClient) (o ownStats, err error) {
	if p.reads != readCached {
		return o, nil
	}
	a, err := c.conn.exchange([]byte("GET /admin/v1/cache/stats?table=" + p.table() + " HTTP/1.1\r\nHost: bench\r\n\r\n"))
	if err != nil {
		return o, err
	}
	var stats struct{ Tables []ownStats }
	if a.status != 200 || json.Unmarshal(a.body, &stats) != nil || len(stats.Tables) != 1 {
		return o, fmt.Errorf("read the cache's statistics: %d %s", a.status, a.body)
	}
	return stats.Tables[0], nil
}

// keepOwn keeps what Headpond needed for reads between two looks.
func (b *cacheBench) keepOwn(p *cachePattern, before, after ownStats) {
	if n := after.Hits - before.Hits; n > 0 {
		b.results.add(p.key+"_own_hit", (after.Hits*after.HitMS-before.Hits*before.HitMS)/n)
	}
	if n := after.Misses - before.Misses; n > 0 {
		b.results.add(p.key+"_own_miss", (after.Misses*after.MissMS-before.Misses*before.MissMS)/n)
	}
}

// readsAt gives how many reads hold as many misses as at every other hit rate:
// they differ most in what they take, and so decide how good a mean is.
func (b *cacheBench) readsAt(rate float64) int {
	return int(float64(b.misses)/max(1-rate, 0.05) + 0.5)
}

// fastMiss measures a miss without the delay of a slow Postgres: what is added
// to the delay in the example.
func (b *cacheBench) fastMiss(ctx context.Context, p *cachePattern, clients []*cacheClient, keys *keySet) error {
	if b.lab.wire == nil {
		return nil
	}
	b.lab.wire.slow(0)
	defer b.lab.wire.slow(b.delay)
	t, err := readSome(ctx, clients, keys, 0, b.readsAt(0))
	b.results.add(p.key+"_fast_miss", t.misses.mean())
	return err
}

// keep the figures of one round.
func (b *cacheBench) keep(p *cachePattern, seen []*readTimings) {
	add := func(key string, v float64) { b.results.add(p.key+key, v) }
	miss, hit := seen[0].misses.mean(), seen[len(seen)-1].hits.mean()
	add("_miss", miss)
	if p.cached {
		add("_hit", hit)
	}
	for i, rate := range b.rates {
		t := seen[i+1]
		measured, predicted := t.all().mean(), effective(t.hitRate(), hit, miss)
		name := rateName(rate)
		add("_rate"+name, t.hitRate())
		add("_measured"+name, measured)
		add("_predicted"+name, predicted)
		add("_ratio"+name, measured/predicted)
	}
}

func rateName(rate float64) string { return fmt.Sprintf("_%02.0f", 100*rate) }

// writes measures how long a write takes, with one client and with many, and
// how many reach Postgres in a second.
func (b *cacheBench) writes(ctx context.Context, p *cachePattern) error {
	for _, conns := range []int{1, writeClients} {
		if err := b.writesOf(ctx, p, conns); err != nil {
			return err
		}
	}
	return nil
}

const writeClients = 64

func (b *cacheBench) writesOf(ctx context.Context, p *cachePattern, conns int) error {
	clients, end, err := b.lab.clients(ctx, p, conns)
	if err != nil {
		return err
	}
	defer end()
	if _, err := writeFor(ctx, clients, b.rows, b.warm); err != nil {
		return err
	}
	if err := b.flushed(clients[0]); err != nil {
		return err
	}
	start := time.Now()
	t, err := writeFor(ctx, clients, b.rows, b.write)
	if err != nil {
		return err
	}
	if err := b.flushed(clients[0]); err != nil {
		return err
	}
	key := fmt.Sprintf("%s_write%d", p.key, conns)
	b.results.add(key, t.mean())
	b.results.add(key+"_p50", t.quantile(50))
	b.results.add(key+"_p99", t.quantile(99))
	b.results.add(key+"_rows", float64(t.count)/time.Since(start).Seconds())
	return nil
}

// flushed waits until Postgres has all that was written.
func (b *cacheBench) flushed(c *cacheClient) error {
	if !c.behind {
		return nil
	}
	a, err := c.conn.exchange(fmt.Appendf(nil, "POST /v1/%s/flush?wait=30s HTTP/1.1\r\nHost: bench\r\nContent-Length: 0\r\n\r\n", c.table))
	if err == nil && a.status != 200 {
		err = fmt.Errorf("flush: %d %s", a.status, a.body)
	}
	return err
}
