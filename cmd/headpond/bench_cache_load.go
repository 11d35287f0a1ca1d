package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// timings are those of requests of one kind. The histogram is exact to a
// hundredth only, so the mean is kept apart.
type timings struct {
	count int64
	sum   time.Duration
	hist  *hdrhistogram.Histogram // microseconds
}

func newTimings() *timings { return &timings{hist: newLatency()} }

func (t *timings) add(took time.Duration) {
	t.count++
	t.sum += took
	_ = t.hist.RecordValue(min(max(took.Microseconds(), 1), time.Minute.Microseconds()))
}

func (t *timings) merge(o *timings) {
	t.count += o.count
	t.sum += o.sum
	t.hist.Merge(o.hist)
}

// mean in milliseconds.
func (t *timings) mean() float64 {
	if t.count == 0 {
		return 0
	}
	return float64(t.sum) / float64(t.count) / float64(time.Millisecond)
}

// quantile in milliseconds.
func (t *timings) quantile(q float64) float64 { return float64(t.hist.ValueAtQuantile(q)) / 1000 }

// readTimings are those of reads, told apart by what the answers say.
type readTimings struct{ hits, misses *timings }

func newReadTimings() *readTimings { return &readTimings{newTimings(), newTimings()} }

func (r *readTimings) merge(o *readTimings) {
	r.hits.merge(o.hits)
	r.misses.merge(o.misses)
}

func (r *readTimings) all() *timings {
	t := newTimings()
	t.merge(r.hits)
	t.merge(r.misses)
	return t
}

func (r *readTimings) hitRate() float64 {
	if r.hits.count+r.misses.count == 0 {
		return 0
	}
	return float64(r.hits.count) / float64(r.hits.count+r.misses.count)
}

// zipfS is the exponent of the load: somewhat steeper than Zipf's own.
const zipfS = 1.1

// keySet is the rows of a table as the read load sees them: the first are in
// the cache, and hot by Zipf's law; of the others each is asked for once, so
// that a miss stays one. Safe for concurrent use.
type keySet struct {
	warm, rows int64
	cold       atomic.Int64
}

// mixer draws keys for one client.
type mixer struct {
	*keySet

	zipf *rand.Zipf
}

func (k *keySet) mixer() *mixer {
	source := rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))                    //nolint:gosec // no secret
	return &mixer{keySet: k, zipf: rand.NewZipf(source, zipfS, 1, uint64(k.warm-1))} //nolint:gosec // not negative
}

// coldStride has no divisor in common with any number of cold rows that is not
// a multiple of it: cold rows are asked for in no order.
const coldStride = 7919

func (m *mixer) next(warm bool) (int64, error) {
	if warm {
		return 1 + int64(m.zipf.Uint64()), nil //nolint:gosec // below warm
	}
	n := m.cold.Add(1) - 1
	if n >= m.rows-m.warm {
		return 0, fmt.Errorf("all %d cold rows were read: the table is too small for this machine", m.rows-m.warm)
	}
	return m.warm + 1 + n*coldStride%(m.rows-m.warm), nil
}

// mixture says of each of so many reads whether it is to hit: as many as the
// hit rate says, in random order.
func mixture(rate float64, count int) []bool {
	warm := make([]bool, count)
	for i := range int(rate*float64(count) + 0.5) {
		warm[i] = true
	}
	rand.Shuffle(count, func(i, j int) { warm[i], warm[j] = warm[j], warm[i] })
	return warm
}

// readSome lets all clients read so many rows, each sending as soon as it has
// its answer.
func readSome(ctx context.Context, clients []*cacheClient, keys *keySet, rate float64, count int) (*readTimings, error) {
	parts := make([]*readTimings, len(clients))
	warm := mixture(rate, count)
	var sent atomic.Int64
	err := together(clients, func(i int, c *cacheClient) error {
		parts[i] = newReadTimings()
		m := keys.mixer()
		for n := sent.Add(1); n <= int64(count) && ctx.Err() == nil; n = sent.Add(1) {
			key, err := m.next(warm[n-1])
			if err != nil {
				return err
			}
			began := time.Now()
			_, hit, err := c.read(ctx, key)
			if err != nil {
				return err
			}
			if hit {
				parts[i].hits.add(time.Since(began))
			} else {
				parts[i].misses.add(time.Since(began))
			}
		}
		return ctx.Err()
	})
	all := newReadTimings()
	for _, p := range parts {
		all.merge(p)
	}
	return all, err
}

// writeFor lets all clients write random rows for a while.
func writeFor(ctx context.Context, clients []*cacheClient, rows int64, lasts time.Duration) (*timings, error) {
	parts := make([]*timings, len(clients))
	end := time.Now().Add(lasts)
	err := together(clients, func(i int, c *cacheClient) error {
		parts[i] = newTimings()
		for n := int64(1); ctx.Err() == nil; n++ {
			key := 1 + rand.Int64N(rows) //nolint:gosec // no secret
			began := time.Now()
			if began.After(end) {
				return nil
			}
			if err := c.write(ctx, key, n); err != nil {
				return err
			}
			parts[i].add(time.Since(began))
		}
		return ctx.Err()
	})
	all := newTimings()
	for _, p := range parts {
		all.merge(p)
	}
	return all, err
}

// readEach reads some rows once: what a cold cache is warmed by.
func readEach(ctx context.Context, clients []*cacheClient, first, last int64) error {
	var next atomic.Int64
	next.Store(first)
	return together(clients, func(_ int, c *cacheClient) error {
		for key := next.Add(1) - 1; key <= last && ctx.Err() == nil; key = next.Add(1) - 1 {
			if _, _, err := c.read(ctx, key); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
}
