package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/headpond/headpond/api"
	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher"
	"github.com/headpond/headpond/flusher/postgres"
)

// role of a process.
type role string

const (
	roleAll     role = "all"
	roleAPI     role = "api"
	roleFlusher role = "flusher"
)

func (r role) api() bool     { return r != roleFlusher }
func (r role) flusher() bool { return r != roleAPI }

// settings are what a process needs to run.
type settings struct {
	role        role
	listen      string // empty: no HTTP
	databaseURL string
	redisURL    string
	config      *config
	log         *slog.Logger
	local       func() any                               // the local stack's part of the status
	ready       func(api string) error                   // called once, when the catalog was read; api is the address served, if any
	stateDir    string                                   // for what this process has acknowledged; empty: none
	kill        func(time.Duration) (pid int, err error) // ends the flusher of the local stack; nil when it is no process of its own
	readOnly    bool                                     // nothing is changed through /admin/v1
	installs    bool                                     // triggers of watched tables: the database is a private one
}

// app is one process: it introduces the rooms to each other.
type app struct {
	settings
	rdb       redis.UniversalClient
	pool      *pgxpool.Pool // for the edge
	flushPool *pgxpool.Pool
	writePool *pgxpool.Pool // for direct writes
	buffer    *buffer.Buffer
	flusher   *flusher.Flusher
	server    *api.Server
	telemetry *telemetry
	tables    *tables
	edge      *edge
	watches   *watches
	safety    *safety
	watcher   *postgres.Watcher
	external  *postgres.ExternalCounts
	processes *postgres.Processes
	addr      string // where HTTP is served, if it is
	listener  atomic.Pointer[api.Listener]
}

// apiConns is how many connections of the API ask Postgres something at a time.
const apiConns = 8

// mostDirect is how many direct writes are in Postgres at a time: they spend
// most of theirs waiting for its disk, which takes many of them at once.
const mostDirect = 32

func newApp(ctx context.Context, s settings) (*app, error) {
	a := &app{settings: s}
	redis.SetLogger(driverLog{s.log})
	var err error
	if a.rdb, err = buffer.Open(s.redisURL); err != nil {
		return nil, usage(err)
	}
	if a.pool, err = postgres.NewPool(ctx, s.databaseURL, postgres.PoolOptions{MaxConns: apiConns, ApplicationName: "headpond api"}); err != nil {
		return nil, usage(err)
	}
	workers := or(s.config.Flusher.Workers, flusher.DefaultWorkers)
	if a.flushPool, err = postgres.NewPool(ctx, s.databaseURL, postgres.PoolOptions{
		MaxConns: int32(flushConns(s.config)), ApplicationName: "headpond flusher", //nolint:gosec // at most 64
	}); err != nil {
		return nil, usage(err)
	}
	if a.writePool, err = postgres.NewPool(ctx, s.databaseURL, postgres.PoolOptions{
		MaxConns: mostDirect, ApplicationName: "headpond direct",
	}); err != nil {
		return nil, usage(err)
	}
	if a.telemetry, err = newTelemetry(ctx, s.log); err != nil {
		return nil, err
	}
	watermarks := postgres.NewWatermarks(a.pool)
	a.processes = postgres.NewProcesses(a.pool)
	if a.buffer, err = buffer.New(a.bufferConfig(), a.rdb, watermarks, s.log); err != nil {
		return nil, err
	}
	a.tables = newTables(a)
	a.watches = newWatches(a)
	a.safety = newSafety(a)
	a.edge = newEdge(a.pool, a.writePool)
	l := s.config.Limits
	a.server, err = api.New(l.api(), api.Deps{
		Buffer: a.buffer, Edge: a.edge, Ledger: watermarks, Letters: postgres.NewLetters(a.pool), Metrics: a.telemetry.handler,
		Local: s.local, Warnings: a.watches.warnings, Checks: a.safety.found, Log: s.log,
		ReadOnly: s.readOnly || s.config.Dashboard.ReadOnly, KillFlusher: s.kill,
		Tracer: a.telemetry.tracer, Heard: a.telemetry.heard, Pool: a.poolNow, Peers: a.alive, Reload: a.tables.reload,
	})
	if err != nil {
		return nil, err
	}
	store := postgres.NewStore(a.flushPool, a.tables.lookup)
	a.flusher, err = flusher.New(flusher.Config{Workers: workers, Drain: s.config.Flusher.Drain, Tracer: a.telemetry.flushing},
		a.buffer, store, a.buffer.Wakes(), a.telemetry, s.log)
	if err != nil {
		return nil, err
	}
	a.watcher = postgres.NewWatcher(a.flushPool, a.buffer, a.watches.tables, store.External(), s.log)
	a.external = store.External()
	return a, a.telemetry.observe(a)
}

// bufferConfig: a process that accepts no rows holds none.
func (a *app) bufferConfig() buffer.Config {
	c := buffer.Config{
		Keys:   func(name string, f *table.Frame) ([]string, error) { return a.tables.keys(name, f) },
		Places: postgres.NewWatermarks(a.pool).Places,
		Caps:   a.config.Limits.caps(),
		Tracer: a.telemetry.tracer,
	}
	if a.role.api() {
		c.Process, c.Peers = a.processes.ID(), a.processes
		c.Memory, c.Tally = int64(a.config.Limits.Memory), a.stateDir
	}
	return c
}

// alive names the processes that accept rows now.
func (a *app) alive(ctx context.Context) ([]string, error) {
	alive, _, err := a.processes.List(ctx)
	return alive, err //nolint:wrapcheck // says what was done
}

// poolNow is the connections of the API to Postgres.
func (a *app) poolNow() api.PostgresPool {
	s := a.pool.Stat()
	return api.PostgresPool{
		Total: int(s.TotalConns()), Idle: int(s.IdleConns()), Max: int(s.MaxConns()), Waiting: s.EmptyAcquireCount(),
	}
}

func (a *app) close() {
	a.server.Close()
	a.edge.close()
	a.pool.Close()
	a.flushPool.Close()
	a.writePool.Close()
	_ = a.rdb.Close()
	a.telemetry.close()
}

// run serves until ctx ends, and then stops in this order: writes are refused
// (503 draining), the flusher finishes and drains, HTTP closes, the buffer
// closes. What is left after the deadline stays in Redis.
func (a *app) run(ctx context.Context) error {
	defer a.close()
	if err := a.checkRedis(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	var listener net.Listener
	if a.listen != "" {
		var err error
		if listener, err = net.Listen("tcp", a.listen); err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		a.addr = listener.Addr().String()
		limited := api.Limit(listener, a.config.Limits.connections())
		a.listener.Store(limited)
		listener = limited
	}
	// Each part has a context of its own, so that they can be stopped in order.
	background := context.WithoutCancel(ctx)
	serving, stopServing := context.WithCancel(background)
	flushing, stopFlushing := context.WithCancel(background)
	buffering, stopBuffering := context.WithCancel(background)
	defer stopServing()
	defer stopFlushing()
	defer stopBuffering()

	g, failed := errgroup.WithContext(ctx)
	g.Go(func() error { return a.buffer.Run(buffering) })
	g.Go(func() error { return a.tables.watch(serving) })
	g.Go(func() error { return a.safety.watch(serving) })
	if listener != nil {
		g.Go(func() error { return a.serveHTTP(serving, listener) })
	}
	if a.role.api() {
		g.Go(func() error { return a.server.Sample(serving) })
		g.Go(func() error { return a.processes.Run(buffering, a.buffer.Holds) })
	}
	flushed := make(chan struct{})
	if a.role.flusher() {
		g.Go(func() error { defer close(flushed); return a.flusher.Run(flushing) })
		g.Go(func() error { return a.reportFlusher(flushing) })
		g.Go(func() error { return a.watcher.Run(flushing) })
	} else {
		close(flushed)
	}
	g.Go(func() error {
		<-failed.Done() // a signal, or a part that failed
		a.server.Drain()
		if ctx.Err() != nil {
			a.log.Info("stopping: writes are refused, what is in the buffer is flushed")
		}
		stopFlushing()
		<-flushed
		stopServing()
		stopBuffering()
		return nil
	})
	return g.Wait()
}

// checkRedis waits for Redis, and refuses one that may evict accepted rows.
func (a *app) checkRedis(ctx context.Context) error {
	for told := false; ; told = true {
		err := a.buffer.CheckDurability(ctx)
		if err == nil {
			break
		}
		if errors.Is(err, buffer.ErrUnsafeRedis) {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		if !told {
			a.log.Warn("waiting for Redis", "error", err)
		}
		pause(ctx, time.Second)
	}
	for _, w := range a.buffer.Durability().Warnings {
		a.log.Warn(w)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (a *app) serveHTTP(ctx context.Context, l net.Listener) error {
	srv := a.server.HTTP()
	if !a.role.api() {
		srv.Handler = a.flusherHandler()
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	a.log.Info("serving", "url", "http://"+a.addr, "role", string(a.role))
	select {
	case err := <-done:
		return fmt.Errorf("serve HTTP: %w", err)
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := srv.Shutdown(closing); err != nil {
		_ = srv.Close()
	}
	return nil
}

// flusherHandler is what a process without the API serves.
func (a *app) flusherHandler() http.Handler {
	mux := http.NewServeMux()
	ok := func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) }
	mux.HandleFunc("GET /livez", ok)
	mux.HandleFunc("GET /readyz", ok)
	if a.telemetry.handler != nil {
		mux.Handle("GET /metrics", a.telemetry.handler)
	}
	return mux
}

// reportFlusher tells the API processes, at once and then once a second, how this one is doing.
func (a *app) reportFlusher(ctx context.Context) error {
	host, _ := os.Hostname()
	id := host + "." + strconv.Itoa(os.Getpid())
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		s := a.flusher.Stats()
		s.ID, s.PID = id, os.Getpid()
		sending, cancel := context.WithTimeout(ctx, time.Second)
		_ = a.buffer.Report(sending, s) // Redis being away shows elsewhere
		cancel()
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			_ = a.buffer.Unreport(last, id) // it goes stale by itself otherwise
			return nil
		case <-tick.C:
		}
	}
}
