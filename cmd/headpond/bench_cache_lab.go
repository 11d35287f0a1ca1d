package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"
)

// cacheLab is the servers of `bench cache`: a private Redis and Postgres, the
// second behind a slow wire if that is asked for, and Headpond as a process of
// its own. stack's pool goes around the wire.
type cacheLab struct {
	stack *benchStack
	wire  *benchWire // nil unless slow
	url   string     // of Postgres, through the wire
	pool  *pgxpool.Pool
	child *benchChild
	addr  string
}

func startCacheLab(ctx context.Context, slow time.Duration) (l *cacheLab, err error) {
	l = &cacheLab{}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.stop())
		}
	}()
	if l.stack, err = startBenchStack(ctx, "", ""); err != nil {
		return l, installHint(err)
	}
	l.url = l.stack.databaseURL
	if slow > 0 {
		if l.wire, l.url, err = newBenchWire(l.url, cacheTablePrefix); err != nil {
			return l, err
		}
		l.wire.slow(slow)
	}
	config, err := pgxpool.ParseConfig(l.url)
	if err != nil {
		return l, fmt.Errorf("read database URL: %w", err)
	}
	config.MaxConns = insertPool
	if l.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return l, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	return l, nil
}

// seed makes the tables.
func (l *cacheLab) seed(ctx context.Context, patterns []*cachePattern, rows int) error {
	for _, p := range patterns {
		tables := []string{p.table()}
		if t := p.staleTable(); t != p.table() {
			tables = append(tables, t)
		}
		for _, t := range tables {
			if _, err := l.stack.pool.Exec(ctx, seedCacheTable(t, rows)); err != nil {
				return fmt.Errorf("create table=%s: %w", t, err)
			}
		}
	}
	_, err := l.stack.pool.Exec(ctx, "checkpoint")
	return err
}

// watch installs the triggers of a pattern's table as a user would.
func (l *cacheLab) watch(ctx context.Context, p *cachePattern) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("install triggers: %w", err)
	}
	cmd := exec.CommandContext(ctx, self, "watch", "install", p.table()) //nolint:gosec // ourselves
	cmd.Env = append(os.Environ(), "DATABASE_URL="+l.stack.databaseURL, "HEADPOND_DATABASE_URL="+l.stack.databaseURL)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("install triggers: %w: %s", err, out)
	}
	return nil
}

// begin starts Headpond with an empty cache.
func (l *cacheLab) begin(ctx context.Context, yaml string) error {
	if err := l.end(); err != nil {
		return err
	}
	if err := l.stack.rdb.FlushAll(ctx).Err(); err != nil {
		return fmt.Errorf("empty Redis: %w", err)
	}
	if err := pgx.BeginFunc(ctx, l.stack.pool, func(tx pgx.Tx) error { return l.stack.forget(ctx, tx) }); err != nil {
		return fmt.Errorf("reset: %w", err)
	}
	slow := *l.stack
	slow.databaseURL = l.url
	child, err := slow.spawn(ctx, yaml)
	if err != nil {
		return err
	}
	l.child, l.addr = child, child.addr
	return nil
}

// end stops Headpond.
func (l *cacheLab) end() error {
	child := l.child
	l.child = nil
	if child == nil {
		return nil
	}
	return child.stop()
}

// loseRedis kills Redis, takes its data away, and starts it again.
func (l *cacheLab) loseRedis(ctx context.Context) error {
	redis := l.stack.redis
	if err := redis.Kill(); err != nil {
		return fmt.Errorf("kill Redis: %w", err)
	}
	for _, name := range []string{"appendonlydir", "dump.rdb"} {
		if err := os.RemoveAll(filepath.Join(redis.Dir(), name)); err != nil {
			return fmt.Errorf("remove what Redis kept: %w", err)
		}
	}
	if err := redis.Restart(ctx); err != nil {
		return fmt.Errorf("start Redis again: %w", err)
	}
	return nil
}

// clients of a pattern, each with a connection. They are closed at the end of
// ctx too, so that none waits for a server that hangs.
func (l *cacheLab) clients(ctx context.Context, p *cachePattern, n int) (clients []*cacheClient, closeAll func(), err error) {
	ctx, end := context.WithCancel(ctx)
	for range n {
		c, err := p.dial(ctx, l.addr, l.pool)
		if err != nil {
			end()
			return nil, nil, err
		}
		context.AfterFunc(ctx, c.close)
		clients = append(clients, c)
	}
	return clients, end, nil
}

// together runs f for each client at once.
func together(clients []*cacheClient, f func(i int, c *cacheClient) error) error {
	var g errgroup.Group
	for i, c := range clients {
		g.Go(func() error { return f(i, c) })
	}
	return g.Wait()
}

func (l *cacheLab) stop() error {
	errs := []error{l.end()}
	if l.pool != nil {
		l.pool.Close()
	}
	if l.wire != nil {
		l.wire.close()
	}
	if l.stack != nil {
		errs = append(errs, l.stack.stop())
	}
	return errors.Join(errs...)
}
