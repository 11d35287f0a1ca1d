package api_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/headpond/headpond/api"
	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/cmd/headpond/up/uptest"
	"github.com/headpond/headpond/flusher"
	"github.com/headpond/headpond/flusher/postgres"
	"github.com/headpond/headpond/migrations"
)

func TestMain(m *testing.M) {
	uptest.Main(m, goleak.IgnoreTopFunction("github.com/redis/go-redis/v9/maintnotifications.(*CircuitBreakerManager).cleanupLoop"))
}

// options of a stack. The zero value is what most tests want.
type options struct {
	redis      string // URL; empty: the shared one
	buffer     buffer.Config
	limits     api.Limits
	partitions int // of each table; 4 when 0
	maxRows    int64
	ttl        time.Duration
	listTTL    time.Duration     // lists are not cached when 0
	strategy   string            // write-behind when empty
	served     func(*api.Served) // changes how a table is served
	cuttable   bool              // Postgres can be cut off: see stack.cut
	serve      func(*http.Server)
}

// stack is a whole Headpond in this process, as cmd wires it, on a database of
// its own. Its tables lie in a schema of its own, because Redis is shared: the
// table t is called "<schema>.t" in paths.
type stack struct {
	*api.Server

	t       testing.TB
	o       options
	schema  string
	url     string
	client  *http.Client
	buf     *buffer.Buffer
	rdb     redis.UniversalClient
	db      *pgxpool.Pool // straight to Postgres, never cut
	pool    *pgxpool.Pool // Headpond's
	edge    *edge
	ledger  *ledger
	flusher *flusher.Flusher
	wire    *wire // nil unless options.cuttable

	current atomic.Pointer[map[string]*table.Table]
	targets map[string]*buffer.Target
}

var schemas atomic.Int64

// setup gives a stack that serves the tables which ddl makes. Nothing is
// flushed before startFlusher.
func setup(t testing.TB, ddl string) *stack { return setupWith(t, ddl, options{}) }

func setupWith(t testing.TB, ddl string, o options) *stack {
	t.Helper()
	if o.partitions == 0 {
		o.partitions = 4
	}
	if o.maxRows == 0 {
		o.maxRows = 1 << 40
	}
	if o.ttl == 0 {
		o.ttl = time.Minute
	}
	if o.redis == "" {
		o.redis = uptest.SharedRedis(t).URL()
	}
	if o.buffer.Budget == 0 {
		o.buffer.Budget, o.buffer.CallTimeout = 20*time.Second, 10*time.Second // the machine may be busy
	}
	s := &stack{t: t, o: o, schema: fmt.Sprintf("s%d", schemas.Add(1)), targets: make(map[string]*buffer.Target)}
	s.openPostgres(ddl)
	s.openBuffer()
	s.serve()
	s.refresh()
	return s
}

func (s *stack) openPostgres(ddl string) {
	t := s.t
	t.Helper()
	dsn := uptest.Migrated(t, migrations.Up)
	dsn += "&search_path=" + s.schema + ",public"
	s.db = openPool(t, dsn)
	s.exec("create schema " + s.schema)
	s.exec(ddl)
	if s.o.cuttable {
		u, err := url.Parse(dsn)
		require.NoError(t, err)
		s.wire = newWire(t, u.Host)
		u.Host = s.wire.addr()
		dsn = u.String()
	}
	s.pool = openPool(t, dsn)
	s.edge = &edge{Edge: postgres.NewEdge(s.pool), pool: s.pool, direct: postgres.NewDirect(openPool(t, dsn)), sequences: make(map[string]*postgres.Sequence)}
	t.Cleanup(s.edge.close)
	s.ledger = &ledger{Watermarks: postgres.NewWatermarks(s.pool)}
}

func openPool(t testing.TB, dsn string) *pgxpool.Pool {
	t.Helper()
	pool, err := postgres.NewPool(context.Background(), dsn, postgres.PoolOptions{MaxConns: 6})
	require.NoError(t, err)
	t.Cleanup(pool.Close)
	return pool
}

func (s *stack) openBuffer() {
	t := s.t
	t.Helper()
	var err error
	s.rdb, err = buffer.Open(s.o.redis)
	require.NoError(t, err)
	s.o.buffer.Process = "p"
	s.buf, err = buffer.New(s.o.buffer, s.rdb, s.ledger, quiet)
	require.NoError(t, err)
	require.Eventually(t, func() bool { err = s.buf.CheckDurability(context.Background()); return err == nil }, 20*time.Second, 10*time.Millisecond,
		"a busy machine may need longer than a short CallTimeout: %v", &err)
	s.background(s.buf.Run)
	s.newServer()
	store := postgres.NewStore(s.pool, func(name string) *table.Table { return (*s.current.Load())[name] })
	s.flusher, err = flusher.New(flusher.Config{Workers: 2, Sweep: 100 * time.Millisecond, Drain: time.Second},
		s.buf, store, s.buf.Wakes(), noLag{}, quiet)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.rdb.Close() }) // a private Redis may be gone
}

func (s *stack) newServer() {
	s.t.Helper()
	var err error
	s.Server, err = api.New(s.o.limits, api.Deps{Buffer: s.buf, Edge: s.edge, Ledger: s.ledger, Letters: postgres.NewLetters(s.pool), Log: quiet})
	require.NoError(s.t, err)
	s.t.Cleanup(s.Server.Close)
}

// restart goes on with an API process that knows nothing.
func (s *stack) restart() {
	s.t.Helper()
	s.newServer()
	s.serve()
	s.refresh()
}

var quiet = slog.New(slog.DiscardHandler)

type noLag struct{}

func (noLag) Lag(string, time.Duration, int64)           {}
func (noLag) Sampled(string, time.Duration, table.Span)  {}
func (noLag) Flushed(string, string, int, time.Duration) {}

// background runs a part of the stack until the test ends.
func (s *stack) background(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	})
	s.t.Cleanup(stop)
	return stop
}

func (s *stack) startFlusher() (stop func()) { return s.background(s.flusher.Run) }

func (s *stack) serve() {
	http1 := httptest.NewUnstartedServer(s.Handler())
	http1.Config = s.HTTP()
	if s.o.serve != nil {
		s.o.serve(http1.Config)
	}
	http1.Start()
	s.url = http1.URL
	transport := &http.Transport{MaxIdleConns: 256, MaxIdleConnsPerHost: 256}
	s.client = &http.Client{Transport: transport, Timeout: 60 * time.Second}
	s.t.Cleanup(func() {
		transport.CloseIdleConnections()
		http1.Close()
	})
}

// refresh reads the catalog and publishes it, as cmd does once a second.
func (s *stack) refresh() {
	t, ctx := s.t, context.Background()
	t.Helper()
	read, err := postgres.LoadCatalog(ctx, s.pool, postgres.Selection{Expose: []string{s.schema + ".*"}})
	require.NoError(t, err)
	served := make(map[string]*api.Served, len(read))
	var places []buffer.Place
	for name, tbl := range read {
		if s.targets[name] == nil {
			s.targets[name] = &buffer.Target{
				Table: name, Partitions: s.o.partitions, Index: tbl.HasKey(), MaxRows: s.o.maxRows, MaxBytes: 1 << 40,
			}
		}
		served[name] = &api.Served{Table: tbl, Target: s.targets[name], Strategy: s.targets[name].Strategy(), TTL: s.o.ttl, ListTTL: s.o.listTTL, Lag: time.Second, Cache: "rows"}
		if s.o.served != nil {
			s.o.served(served[name])
		}
		if tbl.Unusable == "" {
			places = append(places, s.places(name)...)
		}
	}
	require.NoError(t, s.buf.OpenPlaces(ctx, places))
	for _, target := range s.targets {
		if s.o.strategy != "" && target.Strategy() != s.o.strategy {
			require.NoError(t, s.buf.SetStrategy(ctx, target, s.o.strategy))
		}
	}
	s.current.Store(&read)
	for name, tbl := range read {
		if tbl.Unusable == "" {
			s.flusher.Set(flusher.Table{
				Name: name, Partitions: s.o.partitions, Linger: 5 * time.Millisecond, TargetLag: 500 * time.Millisecond,
				Retain: time.Minute, RetainBytes: 64 << 20, Lists: s.o.listTTL > 0,
			})
		}
	}
	s.SetTables(served)
}

// rename serves a table of the stack under another name. For reading and
// writing only: the flusher does not know it.
func (s *stack) rename(tbl, name string) {
	s.t.Helper()
	target := &buffer.Target{Table: name, Partitions: 1, Index: true, MaxRows: 1 << 40, MaxBytes: 1 << 40}
	require.NoError(s.t, s.buf.OpenPlaces(context.Background(), []buffer.Place{{Table: name}}))
	s.SetTables(map[string]*api.Served{name: {Table: (*s.current.Load())[s.schema+"."+tbl], Target: target, TTL: time.Minute}})
}

func (s *stack) places(name string) (out []buffer.Place) {
	for p := range s.o.partitions {
		out = append(out, buffer.Place{Table: name, Partition: p})
	}
	return out
}

// path of something under a table of the stack.
func (s *stack) path(tbl string, more ...string) string {
	p := "/v1/" + s.schema + "." + tbl
	for _, m := range more {
		p += "/" + m
	}
	return p
}

func (s *stack) exec(sql string, args ...any) {
	s.t.Helper()
	_, err := s.db.Exec(context.Background(), sql, args...)
	require.NoError(s.t, err)
}

func (s *stack) count(tbl string) (n int) {
	s.t.Helper()
	require.NoError(s.t, s.db.QueryRow(context.Background(), "select count(*) from "+tbl).Scan(&n))
	return n
}

func (s *stack) text(sql string, args ...any) (out string) {
	s.t.Helper()
	require.NoError(s.t, s.db.QueryRow(context.Background(), sql, args...).Scan(&out))
	return out
}

// accepted is how many rows of the table the buffer ever took.
func (s *stack) accepted(tbl string) (rows uint64) {
	s.t.Helper()
	tails, err := s.buf.Tails(context.Background(), s.places(s.schema+"."+tbl))
	require.NoError(s.t, err)
	for _, tail := range tails {
		rows += tail.Last.Seq
	}
	return rows
}

// flushed waits until everything accepted is settled.
func (s *stack) flushed() {
	s.t.Helper()
	var places []buffer.Place
	for name := range s.targets {
		places = append(places, s.places(name)...)
	}
	require.Eventually(s.t, func() bool {
		tails, err := s.buf.Tails(context.Background(), places)
		for i := range tails {
			if tails[i].Backlog() > 0 {
				return false
			}
		}
		return err == nil
	}, 30*time.Second, 5*time.Millisecond)
}

// edge is the adapter of cmd, with hooks. Set them before requests come.
type edge struct {
	*postgres.Edge

	pool      *pgxpool.Pool
	direct    *postgres.Direct
	mu        sync.Mutex
	sequences map[string]*postgres.Sequence

	loads      atomic.Int64
	beforeLoad func() // before Postgres is asked
	afterLoad  func() // Postgres has answered, the API does not know yet

	lists      atomic.Int64
	beforeList func() // before Postgres is asked
	afterList  func() // Postgres has answered, the API does not know yet

	beforeCommit func() error // of a direct write: all but the COMMIT is done
	afterCommit  func() error // of a direct write: Redis does not know yet
}

func (e *edge) Transact(ctx context.Context, tables []*table.Table, do func(context.Context, api.Tx) error) error {
	err := e.direct.Transact(ctx, tables, func(ctx context.Context, tx *postgres.Tx) error {
		if err := do(ctx, tx); err != nil || e.beforeCommit == nil {
			return err
		}
		return e.beforeCommit()
	})
	if err == nil && e.afterCommit != nil {
		err = e.afterCommit()
	}
	return err
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

func (e *edge) LoadRow(ctx context.Context, t *table.Table, key []table.Cell) (table.Row, bool, error) {
	e.loads.Add(1)
	if e.beforeLoad != nil {
		e.beforeLoad()
	}
	row, found, err := e.Edge.LoadRow(ctx, t, key)
	if e.afterLoad != nil {
		e.afterLoad()
	}
	return row, found, err
}

func (e *edge) List(ctx context.Context, t *table.Table, q *table.Query, each func(table.Row) bool) error {
	e.lists.Add(1)
	if e.beforeList != nil {
		e.beforeList()
	}
	err := e.Edge.List(ctx, t, q, each)
	if e.afterList != nil {
		e.afterList()
	}
	return err
}

func (e *edge) Ping(ctx context.Context) error { return e.pool.Ping(ctx) }

func (e *edge) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range e.sequences {
		s.Close()
	}
}

// ledger is Postgres' side of the books, with a hook.
type ledger struct {
	*postgres.Watermarks

	beforeDead func()
}

func (l *ledger) Dead(ctx context.Context, p buffer.Place, after, upto uint64) ([]buffer.DeadLetter, error) {
	if l.beforeDead != nil {
		l.beforeDead()
	}
	return l.Watermarks.Dead(ctx, p, after, upto)
}

// wire is a TCP connection to Postgres that can be cut: far cheaper than a
// server of one's own, and to a client the same.
type wire struct {
	listener net.Listener
	to       string

	gate sync.RWMutex // locked: nothing passes, and nobody is told

	mu    sync.Mutex
	isCut bool
	conns map[net.Conn]bool
	all   sync.WaitGroup
}

func newWire(t testing.TB, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	w := &wire{listener: l, to: to, conns: make(map[net.Conn]bool)}
	w.all.Go(w.accept)
	t.Cleanup(func() {
		_ = l.Close()
		w.cut()
		w.all.Wait()
	})
	return w
}

func (w *wire) addr() string { return w.listener.Addr().String() }

func (w *wire) accept() {
	for {
		in, err := w.listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", w.to)
		if err != nil || !w.keep(in, out) {
			_ = in.Close()
			continue
		}
		w.all.Go(func() { _, _ = io.Copy(gated{w, out}, in); _ = out.Close() })
		w.all.Go(func() { _, _ = io.Copy(gated{w, in}, out); _ = in.Close() })
	}
}

type gated struct {
	w  *wire
	to io.Writer
}

func (g gated) Write(b []byte) (int, error) {
	g.w.gate.RLock()
	defer g.w.gate.RUnlock()
	return g.to.Write(b)
}

func (w *wire) keep(in, out net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.isCut {
		_ = out.Close()
		return false
	}
	w.conns[in], w.conns[out] = true, true
	return true
}

// cut ends every connection, and every new one at once.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.isCut = true
	for c := range w.conns {
		_ = c.Close()
	}
	clear(w.conns)
}

func (w *wire) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.isCut = false
}
