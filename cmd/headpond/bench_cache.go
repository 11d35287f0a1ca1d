package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/urfave/cli/v3"
)

func benchCacheCommand() *cli.Command {
	return &cli.Command{
		Name:  "cache",
		Usage: "measure the caching patterns side by side, on this machine",
		Description: "Starts a private Redis (fsync before every answer), a private PostgreSQL and Headpond, and measures direct SQL,\n" +
			"cache-aside by the client, read-through, write-through, cache-aside and write-behind on tables that are alike:\n" +
			"how long reads and writes take, how old a row is that is still read, what is lost when Redis dies with its disk,\n" +
			"and the effective latency at several hit rates next to hit rate × hit time + miss rate × miss time.",
		Flags: []cli.Flag{
			outputFlag(),
			&cli.BoolFlag{Name: "quick", Usage: "a run of half a minute: good for a look, not for figures to quote"},
			&cli.IntFlag{Name: "clients", Usage: "read with `N` connections at once; with many, hits wait while Redis has the misses' rows fsynced", Value: 1},
			&cli.DurationFlag{Name: "slow", Usage: "delay each answer of PostgreSQL by `TIME`, for example 50ms"},
			&cli.StringFlag{Name: "picture", Usage: "draw the comparison into `FILE`, as SVG"},
			&cli.StringFlag{Name: "out", Usage: "write the figures as JSON to `FILE`"},
		},
		Action: runBenchCache,
	}
}

// cacheExtent is how much a run does.
type cacheExtent struct {
	rounds   int
	rows     int64         // in each table
	hot      int64         // of them in the cache
	slices   int           // at each hit rate
	misses   int           // in each slice
	warm     time.Duration // before writes are timed
	write    time.Duration
	stale    time.Duration
	shortTTL time.Duration // of the table that only its TTL keeps fresh
	lossy    time.Duration // before Redis dies
	rates    []float64     // of hits
}

var (
	cacheRates     = []float64{0.5, 0.8, 0.95}
	fullCacheBench = cacheExtent{
		rounds: 3, rows: 100_000, hot: 2000, slices: 8, misses: 30, warm: 200 * time.Millisecond, write: 800 * time.Millisecond,
		stale: 5 * time.Second, shortTTL: 2 * time.Second, lossy: time.Second, rates: cacheRates,
	}
	quickCacheBench = cacheExtent{
		rounds: 1, rows: 30_000, hot: 500, slices: 3, misses: 15, warm: 50 * time.Millisecond, write: 200 * time.Millisecond,
		stale: 1500 * time.Millisecond, shortTTL: 500 * time.Millisecond, lossy: 300 * time.Millisecond, rates: cacheRates,
	}
)

// exampleRate is the hit rate of the documents' example, 0.9 × 1 ms + 0.1 × 50
// ms = 5.9 ms.
const exampleRate = 0.9

// cacheBench is one run of the command.
type cacheBench struct {
	cacheExtent
	delay    time.Duration // of each answer of Postgres
	lab      *cacheLab
	results  *benchResults
	progress *benchProgress
	clients  int // that read at once
	keys     map[*cachePattern]*keySet

	mu     sync.Mutex // guards failed
	failed map[*cachePattern]error
}

func newCacheBench(quick bool, slow time.Duration) *cacheBench {
	b := &cacheBench{cacheExtent: fullCacheBench, delay: slow, results: newBenchResults(), failed: make(map[*cachePattern]error)}
	if quick {
		b.cacheExtent = quickCacheBench
	}
	if slow > 0 {
		b.rates = []float64{0.5, 0.8, exampleRate, 0.95}
		b.rounds, b.slices, b.misses = min(b.rounds, 2), 1, 10 // a miss takes long, and always the same
	}
	b.lossy += 20 * slow // some writes of each client
	return b
}

func runBenchCache(ctx context.Context, c *cli.Command) (err error) {
	slow := c.Duration("slow")
	if slow < 0 || slow > time.Second {
		return usage(errors.New("--slow must be from 0 to 1s"))
	}
	b := newCacheBench(c.Bool("quick"), slow)
	if b.clients = c.Int("clients"); b.clients < 1 || b.clients > writeClients {
		return usage(fmt.Errorf("--clients must be from 1 to %d", writeClients))
	}
	b.progress = newBenchProgress(os.Stderr, b.rounds*(2*len(cachePatterns)+3))
	b.progress.say("starting the servers")
	if b.lab, err = startCacheLab(ctx, slow); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.lab.stop()) }()
	if err := b.measure(ctx); err != nil {
		if ctx.Err() != nil {
			return cli.Exit("bench cache: stopped before the end", exitFailed)
		}
		return err
	}
	b.results.describe(ctx, b.lab.stack, c.Bool("quick"))
	b.progress.clear()
	report := b.report()
	if file := c.String("picture"); file != "" {
		if err := os.WriteFile(file, drawCache(report), 0o644); err != nil { //nolint:gosec // figures are no secret
			return fmt.Errorf("draw: %w", err)
		}
	}
	return publish(c.Root().Writer, report, c.String("output"), c.String("out"))
}

// measure makes every round: reads while the cache is as it was warmed, then
// writes, and at last what destroys.
func (b *cacheBench) measure(ctx context.Context) error {
	b.progress.say("making the tables")
	if err := b.lab.seed(ctx, cachePatterns, int(b.rows)); err != nil {
		return err
	}
	for _, p := range cachePatterns {
		if p.watched {
			if err := b.fails(p, b.lab.watch(ctx, p)); err != nil {
				return err
			}
		}
	}
	for round := range b.rounds {
		patterns := slices.Clone(cachePatterns)
		if round%2 == 1 { // a machine that gets slower with time favours nobody
			slices.Reverse(patterns)
		}
		if err := b.round(ctx, patterns); err != nil {
			return err
		}
	}
	return nil
}

func (b *cacheBench) round(ctx context.Context, patterns []*cachePattern) error {
	if err := b.lab.begin(ctx, cacheConfig(cachePatterns, b.shortTTL)); err != nil {
		return err
	}
	b.keys = make(map[*cachePattern]*keySet)
	each := func(what string, f func(context.Context, *cachePattern) error) error {
		for _, p := range patterns {
			b.keys[p] = &keySet{warm: b.hot, rows: b.rows}
			err := b.step(p.name+", "+what, func() error {
				if b.failed[p] != nil {
					return nil
				}
				return b.fails(p, f(ctx, p))
			})
			if err != nil {
				return err
			}
		}
		return ctx.Err()
	}
	if err := each("reads", b.reads); err != nil {
		return err
	}
	if err := each("writes", b.writes); err != nil {
		return err
	}
	if err := b.step("staleness", func() error { return b.staleness(ctx, b.sound(patterns)) }); err != nil {
		return err
	}
	// Write-behind alone: what it loses depends on how fast it is.
	for _, behind := range []bool{true, false} {
		some := slices.DeleteFunc(b.sound(patterns), func(p *cachePattern) bool { return p.behind != behind })
		err := b.step("Redis dies", func() error {
			if err := b.lab.begin(ctx, cacheConfig(cachePatterns, b.shortTTL)); err != nil {
				return err
			}
			return b.loss(ctx, some)
		})
		if err != nil {
			return err
		}
	}
	return b.restore(ctx, patterns)
}

func (b *cacheBench) step(title string, f func() error) error {
	b.progress.step(title)
	others := watchOthers()
	err := f()
	percent, known := others.share()
	b.results.disturbed(title, percent, known)
	return err
}

// restore takes the marks of the loss out of the rows.
func (b *cacheBench) restore(ctx context.Context, patterns []*cachePattern) error {
	if err := b.lab.end(); err != nil {
		return err
	}
	for _, p := range patterns {
		if _, err := b.lab.stack.pool.Exec(ctx, "update "+p.table()+" set n = 0 where n = $1", lossMark); err != nil {
			return fmt.Errorf("restore rows: %w", err)
		}
	}
	return nil
}

// fails takes a pattern out of the run that cannot be measured, unless the run
// was stopped.
func (b *cacheBench) fails(p *cachePattern, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.failed[p] = err
	return nil
}

// sound are the patterns that could be measured so far.
func (b *cacheBench) sound(patterns []*cachePattern) []*cachePattern {
	return slices.DeleteFunc(slices.Clone(patterns), func(p *cachePattern) bool { return b.failed[p] != nil })
}
