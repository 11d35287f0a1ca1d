package client_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http/httptest"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/headpond/headpond/api"
	"github.com/headpond/headpond/api/client"
	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/cmd/headpond/up"
	"github.com/headpond/headpond/flusher"
	"github.com/headpond/headpond/flusher/postgres"
	"github.com/headpond/headpond/migrations"
)

// pond is a whole Headpond on a Redis and a PostgreSQL of its own, one for all
// tests and examples of this package: examples have no *testing.T to start one
// with. A test makes the tables it needs. address is its base URL.
var (
	pond    *stack
	address string
)

func TestMain(m *testing.M) {
	s, err := start()
	code := 1
	if err == nil {
		pond, address = s, s.web.URL
		code = m.Run()
	}
	if err = errors.Join(err, s.stop()); err == nil && code == 0 {
		err = goleak.Find(goleak.IgnoreTopFunction("github.com/redis/go-redis/v9/maintnotifications.(*CircuitBreakerManager).cleanupLoop"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

type stack struct {
	rdb     redis.UniversalClient
	pool    *pgxpool.Pool
	buf     *buffer.Buffer
	edge    *edge
	ledger  *postgres.Watermarks
	flusher *flusher.Flusher
	web     *httptest.Server
	stops   []func() error // the last one first

	mu      sync.Mutex // guards the rest
	read    atomic.Pointer[map[string]*table.Table]
	targets map[string]*buffer.Target
	served  map[string]*api.Served
	servers []*api.Server
	names   int
}

const partitions = 4

var quiet = slog.New(slog.DiscardHandler)

func start() (*stack, error) {
	ctx := context.Background()
	s := &stack{targets: make(map[string]*buffer.Target)}
	rd, err := up.StartRedis(ctx, up.RedisOptions{Ephemeral: true, Log: quiet})
	if err != nil {
		return s, err
	}
	s.stops = append(s.stops, rd.Stop)
	pg, err := up.StartPostgres(ctx, up.PostgresOptions{Ephemeral: true, NoSync: true, Log: quiet})
	if err != nil {
		return s, err
	}
	s.stops = append(s.stops, pg.Stop)
	if err := migrations.Up(ctx, pg.URL()); err != nil {
		return s, err
	}
	if _, err := migrations.Examples(ctx, pg.URL()); err != nil {
		return s, err
	}
	if err := s.open(ctx, rd.URL(), pg.URL()); err != nil {
		return s, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s, s.refresh(ctx, false)
}

// open makes the parts of Headpond, as cmd wires them.
func (s *stack) open(ctx context.Context, redisURL, postgresURL string) (err error) {
	if s.pool, err = postgres.NewPool(ctx, postgresURL, postgres.PoolOptions{MaxConns: 12}); err != nil {
		return err
	}
	s.stops = append(s.stops, func() error { s.pool.Close(); return nil })
	if s.rdb, err = buffer.Open(redisURL); err != nil {
		return err
	}
	s.stops = append(s.stops, s.rdb.Close)
	s.edge = &edge{Edge: postgres.NewEdge(s.pool), pool: s.pool, direct: postgres.NewDirect(s.pool), sequences: make(map[string]*postgres.Sequence)}
	s.stops = append(s.stops, s.edge.close)
	s.ledger = postgres.NewWatermarks(s.pool)
	s.buf, err = buffer.New(buffer.Config{Process: "p", Memory: 64 << 20, Budget: 20 * time.Second, CallTimeout: 10 * time.Second}, s.rdb, s.ledger, quiet)
	if err != nil {
		return err
	}
	if err := s.buf.CheckDurability(ctx); err != nil {
		return err
	}
	s.background(s.buf.Run)
	store := postgres.NewStore(s.pool, func(name string) *table.Table { return (*s.read.Load())[name] })
	s.flusher, err = flusher.New(flusher.Config{Workers: 2, Sweep: 100 * time.Millisecond, Drain: time.Second},
		s.buf, store, s.buf.Wakes(), noLag{}, quiet)
	if err != nil {
		return err
	}
	s.background(s.flusher.Run)
	_, s.web, err = s.serve(api.Limits{})
	return err
}

type noLag struct{}

func (noLag) Lag(string, time.Duration, int64)           {}
func (noLag) Sampled(string, time.Duration, table.Span)  {}
func (noLag) Flushed(string, string, int, time.Duration) {}

// background runs a part of the stack until stop.
func (s *stack) background(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	s.stops = append(s.stops, func() error { cancel(); return <-done })
}

// serve starts one more API process, as it were, on the same Redis.
func (s *stack) serve(limits api.Limits) (*api.Server, *httptest.Server, error) {
	server, err := api.New(limits, api.Deps{Buffer: s.buf, Edge: s.edge, Ledger: s.ledger, Letters: postgres.NewLetters(s.pool), Log: quiet})
	if err != nil {
		return nil, nil, err
	}
	web := httptest.NewUnstartedServer(server.Handler())
	web.Config = server.HTTP()
	web.Start()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stops = append(s.stops, func() error { web.Close(); return nil })
	s.servers = append(s.servers, server)
	server.SetTables(s.served)
	return server, web, nil
}

func (s *stack) stop() error {
	var errs []error
	for i := len(s.stops) - 1; i >= 0; i-- {
		errs = append(errs, s.stops[i]())
	}
	return errors.Join(errs...)
}

// refresh reads the catalog and publishes it. Tables that are new are flushed
// unless they are held. s.mu is held.
func (s *stack) refresh(ctx context.Context, held bool) error {
	read, err := postgres.LoadCatalog(ctx, s.pool, postgres.Selection{Expose: []string{"public.*"}})
	if err != nil {
		return err
	}
	served := make(map[string]*api.Served, len(read))
	var places []buffer.Place
	var fresh []string
	for name, tbl := range read {
		target := s.targets[name]
		if target == nil {
			target = &buffer.Target{Table: name, Partitions: partitions, Index: tbl.HasKey(), MaxRows: 1 << 40, MaxBytes: 1 << 40}
			fresh = append(fresh, name)
			for p := range partitions {
				places = append(places, buffer.Place{Table: name, Partition: p})
			}
		}
		served[name] = &api.Served{Table: tbl, Target: target, Strategy: "write-behind", TTL: time.Minute, Lag: time.Second, Cache: "rows"}
	}
	if err := s.buf.OpenPlaces(ctx, places); err != nil {
		return err
	}
	s.read.Store(&read)
	s.served = served
	for _, name := range fresh {
		s.targets[name] = served[name].Target
		if !held {
			s.release(name)
		}
	}
	for _, server := range s.servers {
		server.SetTables(maps.Clone(served))
	}
	return nil
}

// release has a table flushed that was held.
func (s *stack) release(name string) {
	s.flusher.Set(flusher.Table{
		Name: name, Partitions: partitions, Linger: 5 * time.Millisecond, TargetLag: 500 * time.Millisecond,
		Retain: time.Minute, RetainBytes: 64 << 20,
	})
}

// table makes one, of these columns, under a name of its own.
func (s *stack) table(t testing.TB, columns string) string { return s.tableWith(t, columns, false, 0) }

// tableWith makes one that is not flushed before release if it is held, and
// whose partitions hold so many rows if most is not 0.
func (s *stack) tableWith(t testing.TB, columns string, held bool, most int64) string {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names++
	name := fmt.Sprintf("t%d", s.names)
	s.exec(t, "create table "+name+" ("+columns+")")
	require.NoError(t, s.refresh(t.Context(), held))
	if most > 0 {
		s.targets[name].MaxRows = most
	}
	return name
}

func (s *stack) exec(t testing.TB, sql string) {
	t.Helper()
	_, err := s.pool.Exec(t.Context(), sql)
	require.NoError(t, err)
}

// text is what Postgres answers, in text.
func (s *stack) text(t testing.TB, sql string) (out string) {
	t.Helper()
	require.NoError(t, s.pool.QueryRow(t.Context(), "select ("+sql+")::text").Scan(&out))
	return out
}

// edge is the adapter of cmd.
type edge struct {
	*postgres.Edge

	pool      *pgxpool.Pool
	direct    *postgres.Direct
	mu        sync.Mutex // guards sequences
	sequences map[string]*postgres.Sequence
}

func (e *edge) NextValues(ctx context.Context, c *table.Column, n int) ([]int64, error) {
	e.mu.Lock()
	s := e.sequences[c.Default.Sequence]
	if s == nil {
		s = e.NewSequence(c.Default.Sequence, postgres.SequenceCap(c.Type))
		e.sequences[c.Default.Sequence] = s
	}
	e.mu.Unlock()
	return s.Next(ctx, n)
}

func (e *edge) Transact(ctx context.Context, tables []*table.Table, do func(context.Context, api.Tx) error) error {
	return e.direct.Transact(ctx, tables, func(ctx context.Context, tx *postgres.Tx) error { return do(ctx, tx) })
}

func (e *edge) Ping(ctx context.Context) error { return e.pool.Ping(ctx) }

func (e *edge) close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.sequences {
		s.Close()
	}
	return nil
}

// dial gives a client of the stack, or of another address.
func dial(t testing.TB, at string, opts ...client.Option) *client.Client {
	t.Helper()
	c, err := client.New(at, opts...)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// refused takes the error of a call apart.
func refused(t testing.TB, err error, code client.Code) *client.Error {
	t.Helper()
	require.ErrorIs(t, err, code)
	var e *client.Error
	require.ErrorAs(t, err, &e)
	require.Equal(t, code, e.Code)
	require.Contains(t, err.Error(), string(code))
	return e
}
