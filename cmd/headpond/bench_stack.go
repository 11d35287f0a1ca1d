package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"

	"github.com/headpond/headpond/cmd/headpond/up"
	"github.com/headpond/headpond/migrations"
)

// The two tables that are written: the rows of one are in the index, those of
// the other (cache: none) only in the log.
const (
	benchTable    = "headpond_bench"
	benchLogTable = "headpond_bench_log"
	idleSchema    = "headpond_bench_idle"
)

// Autovacuum is off, since it would fall into one section and spare another.
const createBenchTable = `(
	id uuid primary key default gen_random_uuid(), user_id bigint not null, kind text not null, amount numeric(12,2),
	payload jsonb, created_at timestamptz not null default now()
) with (autovacuum_enabled = false)`

// benchStack is the servers that are measured on.
type benchStack struct {
	redis    *up.Redis // nil where the user has their own
	postgres *up.Postgres

	redisURL, databaseURL string
	rdb                   *redis.Client
	pool                  *pgxpool.Pool
	log                   *slog.Logger
}

func startBenchStack(ctx context.Context, databaseURL, redisURL string) (_ *benchStack, err error) {
	s := &benchStack{
		databaseURL: databaseURL, redisURL: redisURL,
		log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	if redisURL == "" {
		if s.redis, err = up.StartRedis(ctx, up.RedisOptions{Ephemeral: true, Log: s.log}); err != nil {
			return nil, fmt.Errorf("start Redis: %w", err)
		}
		s.redisURL = s.redis.URL()
	}
	if databaseURL == "" {
		if s.postgres, err = up.StartPostgres(ctx, up.PostgresOptions{Ephemeral: true, Log: s.log}); err != nil {
			return nil, fmt.Errorf("start PostgreSQL: %w", err)
		}
		s.databaseURL = s.postgres.URL()
	}
	options, err := redis.ParseURL(s.redisURL)
	if err != nil {
		return nil, usage(fmt.Errorf("read Redis URL: %w", err))
	}
	s.rdb = redis.NewClient(options) // all defaults: it is also what (c) uses
	if err := s.connect(ctx); err != nil {
		return nil, err
	}
	return s, migrations.Up(ctx, s.databaseURL)
}

// connect opens the pool of (b), which the bench itself uses too, and makes
// the tables.
func (s *benchStack) connect(ctx context.Context) error {
	config, err := pgxpool.ParseConfig(s.databaseURL)
	if err != nil {
		return usage(fmt.Errorf("read database URL: %w", err))
	}
	config.MaxConns = insertPool
	if s.pool, err = pgxpool.NewWithConfig(ctx, config); err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	for _, t := range []string{benchTable, benchLogTable} {
		if _, err := s.pool.Exec(ctx, "drop table if exists "+t+"; create table "+t+" "+createBenchTable); err != nil {
			return fmt.Errorf("create bench tables: %w", err)
		}
	}
	return nil
}

// reset empties the tables, the log, the index and the watermarks of the
// bench, and nothing else. No Headpond may be running. The checkpoint keeps
// one from falling into a measurement.
func (s *benchStack) reset(ctx context.Context) error {
	tx := func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "truncate "+benchTable+", "+benchLogTable); err != nil {
			return err
		}
		return s.forget(ctx, tx)
	}
	if err := pgx.BeginFunc(ctx, s.pool, tx); err != nil {
		return fmt.Errorf("reset: %w", err)
	}
	if _, err := s.pool.Exec(ctx, "checkpoint"); err != nil && s.postgres != nil {
		return fmt.Errorf("reset: %w", err)
	}
	return s.delete(ctx)
}

func (s *benchStack) forget(ctx context.Context, tx pgx.Tx) error {
	for _, t := range []string{"watermarks", "epochs", "moves", "dead_letters"} {
		if _, err := tx.Exec(ctx, "delete from headpond."+t+" where table_name like 'headpond\\_bench%'"); err != nil {
			return err
		}
	}
	return nil
}

// delete frees the memory before it returns. UNLINK frees it in the background,
// and the next measurement of memory would begin with what is not yet gone.
func (s *benchStack) delete(ctx context.Context) error {
	for _, pattern := range []string{"hp:{headpond_bench*", naiveHash, naiveStream} {
		keys := s.rdb.Scan(ctx, 0, pattern, 10_000).Iterator()
		for keys.Next(ctx) {
			if err := s.rdb.Del(ctx, keys.Val()).Err(); err != nil {
				return fmt.Errorf("reset: %w", err)
			}
		}
		if err := keys.Err(); err != nil {
			return fmt.Errorf("reset: %w", err)
		}
	}
	return nil
}

// private reports whether both servers are ours.
func (s *benchStack) private() bool { return s.redis != nil && s.postgres != nil }

// stop removes what the bench made on servers of the user, and stops the
// others.
func (s *benchStack) stop() error {
	var errs []error
	if s.postgres == nil && s.pool != nil {
		ctx := context.Background()
		errs = append(errs, s.reset(ctx))
		_, err := s.pool.Exec(ctx, "drop table if exists "+benchTable+", "+benchLogTable+"; drop schema if exists "+idleSchema+" cascade")
		errs = append(errs, err)
	} else if s.redis == nil && s.rdb != nil {
		errs = append(errs, s.delete(context.Background()))
	}
	if s.pool != nil {
		s.pool.Close()
	}
	if s.rdb != nil {
		errs = append(errs, s.rdb.Close())
	}
	if s.postgres != nil {
		errs = append(errs, s.postgres.Stop())
	}
	if s.redis != nil {
		errs = append(errs, s.redis.Stop())
	}
	return errors.Join(errs...)
}
