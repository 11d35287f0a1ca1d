package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
	"time"
)

// benchApp is Headpond as `serve` runs it, in this process.
type benchApp struct {
	addr  string
	ready time.Time
	end   context.CancelFunc
	done  chan error
}

func benchConfig() *config {
	c := defaultConfig()
	c.Expose = nil
	c.Tables = map[string]tableConfig{benchTable: {}, benchLogTable: {Cache: "none"}}
	c.Flusher.Drain = time.Second
	return c
}

// serve starts Headpond and returns when it is ready.
func (b *bench) serve(ctx context.Context, as role) (*benchApp, error) {
	ctx, end := context.WithCancel(ctx)
	ready := make(chan string, 1)
	s := settings{
		role: as, databaseURL: b.stack.databaseURL, redisURL: b.stack.redisURL, config: benchConfig(), log: b.stack.log,
	}
	if as.api() {
		s.listen = "127.0.0.1:0"
	}
	p := &benchApp{end: end, done: make(chan error, 1)}
	s.ready = func(addr string) error {
		p.ready = time.Now()
		ready <- addr
		return nil
	}
	a, err := newApp(ctx, s)
	if err != nil {
		end()
		return nil, err
	}
	go func() { p.done <- a.run(ctx) }()
	select {
	case p.addr = <-ready:
		return p, nil
	case err := <-p.done:
		end()
		return nil, errors.Join(err, ctx.Err())
	}
}

func (p *benchApp) stop() error {
	p.end()
	return <-p.done
}

// with runs f on a Headpond.
func (b *bench) with(ctx context.Context, as role, f func(*benchApp) error) (err error) {
	p, err := b.serve(ctx, as)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	return f(p)
}

// committed waits until Postgres has committed so many rows of a table, and
// says when that was seen.
func (s *benchStack) committed(ctx context.Context, table string, rows int64) (time.Time, error) {
	return s.settled(ctx, table, rows, 0)
}

// settled is the same where some of the rows are to be refused by PostgreSQL.
func (s *benchStack) settled(ctx context.Context, table string, rows, refused int64) (time.Time, error) {
	last, moved := int64(-1), time.Now()
	for {
		var done, dead int64
		err := s.pool.QueryRow(ctx, `select coalesce(sum(committed + coalesced), 0)::bigint, coalesce(sum(dead + lost), 0)::bigint
			from headpond.watermarks where table_name = $1`, table).Scan(&done, &dead)
		now := time.Now()
		switch {
		case err != nil:
			return now, fmt.Errorf("read ledger: %w", err)
		case dead > refused:
			return now, fmt.Errorf("%d rows of %s were not written: see headpond.dead_letters", dead, table)
		case done+dead >= rows:
			return now, nil
		case done != last:
			last, moved = done, now
		case now.Sub(moved) > 30*time.Second:
			return now, fmt.Errorf("the flusher stands still: %d of %d rows of %s committed", done, rows, table)
		}
		pause(ctx, 3*time.Millisecond)
	}
}

// verify is the ledger's test: as many rows as were accepted are in the table.
func (s *benchStack) verify(ctx context.Context, table string, accepted int64) error {
	if _, err := s.committed(ctx, table, accepted); err != nil {
		return err
	}
	var rows int64
	if err := s.pool.QueryRow(ctx, "select count(*) from "+table).Scan(&rows); err != nil {
		return fmt.Errorf("count rows: %w", err)
	}
	if rows != accepted {
		return fmt.Errorf("%s: %d rows were accepted and %d are in PostgreSQL", table, accepted, rows)
	}
	return nil
}

// profiled runs f under the CPU profiler, in the last round, if that was asked
// for.
func (b *bench) profiled(key string, f func() error) error {
	if b.profile == "" || b.round != b.rounds-1 {
		return f()
	}
	file, err := os.Create(b.profile + "." + key)
	if err != nil {
		return fmt.Errorf("write profile: %w", err)
	}
	defer func() { _ = file.Close() }()
	if err := pprof.StartCPUProfile(file); err != nil {
		return fmt.Errorf("write profile: %w", err)
	}
	defer pprof.StopCPUProfile()
	return f()
}
