package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"github.com/headpond/headpond/cmd/headpond/up"
	"github.com/headpond/headpond/migrations"
)

// The tables of a drill: one without any key, so that nothing but Headpond
// keeps a row from arriving twice, one of counters, and one of rows.
const (
	drillLog      = "headpond_drill_log"
	drillCounters = "headpond_drill_counters"
	drillRows     = "headpond_drill_rows"
)

var drillTables = []string{drillLog, drillCounters, drillRows}

const createDrillTables = `
	create table ` + drillLog + ` (client bigint not null, n bigint not null, amount int not null check (amount >= 0));
	create table ` + drillCounters + ` (key bigint primary key, count bigint not null default 0, sum bigint not null default 0);
	create table ` + drillRows + ` (key bigint primary key, client bigint not null, n bigint not null, patch_client bigint, patch_n bigint)`

const drillProcesses = 2 // of the API, and as many flushers

// drillStack is private servers, and API and flusher processes, all of them
// children that a drill kills.
type drillStack struct {
	dir      string
	redis    *up.Redis
	postgres *up.Postgres
	apis     []*up.Process
	flushers []*up.Process
	addrs    []string // of the APIs

	log  *slog.Logger
	logs []*os.File
	keep func() // ends the supervisors
	kept sync.WaitGroup
}

// startDrillStack starts everything on a directory. Above so many rows of
// backlog, per table, writes are refused.
func startDrillStack(ctx context.Context, dir string, backlog int64) (_ *drillStack, err error) {
	s := &drillStack{dir: dir, keep: func() {}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	file, err := s.logFile("drill")
	if err != nil {
		return nil, err
	}
	s.log = slog.New(slog.NewTextHandler(file, nil))
	if err := s.startServers(ctx); err != nil {
		return nil, err
	}
	if err := migrations.Up(ctx, s.postgres.URL()); err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	if err := runSQL(ctx, s.postgres.URL(), createDrillTables); err != nil {
		return nil, err
	}
	if err := s.startProcesses(ctx, backlog); err != nil {
		return nil, err
	}
	return s, s.ready(ctx)
}

func (s *drillStack) startServers(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		s.redis, err = up.StartRedis(ctx, up.RedisOptions{Dir: filepath.Join(s.dir, "redis"), Log: s.log})
		return err
	})
	g.Go(func() (err error) {
		s.postgres, err = up.StartPostgres(ctx, up.PostgresOptions{Dir: filepath.Join(s.dir, "postgres"), Log: s.log})
		return err
	})
	return g.Wait()
}

func runSQL(ctx context.Context, database, sql string) error {
	conn, err := pgx.Connect(ctx, database)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if _, err := conn.Exec(ctx, sql); err != nil {
		return fmt.Errorf("make the tables of the drill: %w", err)
	}
	return nil
}

// drillYAML: the backlog is small, so that it can be filled within seconds.
const drillYAML = `expose: [public.headpond_drill_*]
tables:
  ` + drillLog + `: { cache: none }
limits: { backlog_rows: %d }
`

func (s *drillStack) startProcesses(ctx context.Context, backlog int64) error {
	config := filepath.Join(s.dir, "headpond.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, drillYAML, backlog), 0o600); err != nil {
		return fmt.Errorf("write config: %w", err)
	}
	keeping, release := context.WithCancel(context.WithoutCancel(ctx))
	s.keep = release
	for i := range drillProcesses {
		addr, err := freeAddress()
		if err != nil {
			return err
		}
		s.addrs = append(s.addrs, addr)
		if s.apis, err = s.process(ctx, s.apis, "api", i, "--config", config, "--listen", addr); err != nil {
			return err
		}
		if s.flushers, err = s.process(ctx, s.flushers, "flusher", i, "--config", config); err != nil {
			return err
		}
	}
	for _, p := range append(s.apis[:len(s.apis):len(s.apis)], s.flushers...) {
		s.kept.Go(func() { _ = p.Supervise(keeping) }) // it returns when it is stopped
	}
	return nil
}

// process starts `headpond serve` of this very program.
func (s *drillStack) process(ctx context.Context, all []*up.Process, role string, n int, args ...string) ([]*up.Process, error) {
	self, err := os.Executable()
	if err != nil {
		return all, fmt.Errorf("start headpond: %w", err)
	}
	name := role + strconv.Itoa(n+1)
	file, err := s.logFile(name)
	if err != nil {
		return all, err
	}
	p, err := up.StartProcess(ctx, up.ProcessOptions{
		Name: name, Program: self, Args: append([]string{"serve", "--role", role}, args...), Log: s.log, Output: file,
		Env: append(os.Environ(), "DATABASE_URL="+s.postgres.URL(), "REDIS_URL="+s.redis.URL(),
			"HEADPOND_DATABASE_URL="+s.postgres.URL(), "HEADPOND_REDIS_URL="+s.redis.URL(), "HEADPOND_STATE_DIR="+filepath.Join(s.dir, "state-"+name)),
	})
	if err != nil {
		return all, err
	}
	return append(all, p), nil
}

func (s *drillStack) logFile(name string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(s.dir, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	s.logs = append(s.logs, file)
	return file, nil
}

const drillPatience = time.Minute // for what must come true after a start or a fault

// ready waits until every API serves the tables.
func (s *drillStack) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, drillPatience)
	defer cancel()
	for _, addr := range s.addrs {
		for _, path := range []string{"/readyz", "/v1/" + drillRows + "/_schema"} {
			if err := awaitOK(ctx, "http://"+addr+path); err != nil {
				return err
			}
		}
	}
	return nil
}

// awaitOK asks until the answer is 200.
func awaitOK(ctx context.Context, url string) error {
	for {
		err := askOnce(ctx, url)
		if err == nil {
			return nil
		}
		if pause(ctx, 10*time.Millisecond); ctx.Err() != nil {
			return fmt.Errorf("headpond serve did not become ready: %w", err)
		}
	}
}

func askOnce(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("ask headpond: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return nil
}

// stop ends all that was started, the flushers first: they drain.
func (s *drillStack) stop() error {
	var g errgroup.Group
	for _, p := range append(s.flushers[:len(s.flushers):len(s.flushers)], s.apis...) {
		g.Go(p.Stop)
	}
	errs := []error{g.Wait()}
	s.keep()
	s.kept.Wait()
	if s.redis != nil {
		errs = append(errs, s.redis.Stop())
	}
	if s.postgres != nil {
		errs = append(errs, s.postgres.Stop())
	}
	for _, file := range s.logs {
		errs = append(errs, file.Close())
	}
	return errors.Join(errs...)
}
