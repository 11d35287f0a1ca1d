package buffer

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"
)

// Buffer is the rows that were accepted and are not yet in Postgres, and the
// cached ones. All methods are safe for concurrent use.
type Buffer struct {
	cfg    Config
	rdb    redis.UniversalClient
	wms    Watermarks
	log    *slog.Logger
	queue  queue
	reads  readQueue
	quiet  placeSet // whose index was empty when it was looked at last
	hub    hub
	memory *memory
	tally  *tally // nil: none is kept
	// A call and what becomes of it are under flight, shared; whoever gives back
	// what this process holds takes it alone, so that nothing is on its way then.
	flight sync.RWMutex
	hurry  chan struct{} // Redis may be another run: look at once

	pressure pressure

	durability atomic.Pointer[Durability]
	draining   atomic.Bool
	counters   Counters

	mu         sync.Mutex        // guards places and strategies; not held while talking to Redis or Postgres
	places     []Place           // all that a handshake must open
	strategies map[string]string // of tables that are not write-behind, for new epochs
	forgotten  map[Place]uint64  // the last epoch that began with a Redis that had forgotten calls

	shaking chan struct{} // holds a token while a handshake runs: one at a time in this process
	leases  string        // prefix of lease tokens, unique to this process
	leaseNo atomic.Uint64
}

// Open connects to Redis. address is a redis:// or rediss:// URL; several nodes of
// a cluster are given as addr parameters (redis://a:6379?addr=b:6379). It sets
// the options that exactness depends on: no retries by the driver (the script
// calls are idempotent, and retried here under the same number).
func Open(address string) (redis.UniversalClient, error) {
	if cluster, err := redis.ParseClusterURL(address); err == nil && len(cluster.Addrs) > 1 {
		cluster.ContextTimeoutEnabled = true
		cluster.DisableIdentity = true
		return redis.NewClusterClient(cluster), nil
	}
	o, err := redis.ParseURL(address)
	if err != nil {
		return nil, badURL(address, err)
	}
	o.MaxRetries = -1
	o.ContextTimeoutEnabled = true
	o.DisableIdentity = true // CLIENT SETINFO is unknown to Redis before 7.2
	o.DialTimeout = 2 * time.Second
	o.DialerRetries = 1 // the lanes try again by themselves
	o.ReadTimeout = 5 * time.Second
	o.WriteTimeout = 5 * time.Second
	o.PoolSize = 32
	o.MinIdleConns = 2
	return redis.NewClient(o), nil
}

// New makes a buffer on a client from Open. Run must be running before
// Append is called.
func New(cfg Config, rdb redis.UniversalClient, wms Watermarks, log *slog.Logger) (*Buffer, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return nil, fmt.Errorf("make producer id: %w", err)
	}
	b := &Buffer{cfg: cfg.withDefaults(), rdb: rdb, wms: wms, log: log, leases: id.String()[:13] + "-"}
	b.shaking, b.hurry = make(chan struct{}, 1), make(chan struct{}, 1)
	b.memory = newMemory(b.cfg.Memory)
	b.forgotten = make(map[Place]uint64)
	if b.tally, err = openTally(b.cfg.Tally, b.cfg.Process); err != nil {
		log.Warn("were this process to die together with Redis, nobody would know how many rows are lost", "error", err)
	}
	rdb.AddHook(dialHook{b})
	b.queue.init()
	b.hub.init()
	b.pressure.init(cfg.Caps)
	b.durability.Store(&Durability{Level: "memory"})
	return b, nil
}

// Run starts the lanes and the listener, and stops them when ctx ends: writes
// already queued are still sent. It returns nil after a clean stop.
func (b *Buffer) Run(ctx context.Context) error {
	producer, err := uuid.NewRandom()
	if err != nil {
		return fmt.Errorf("make producer id: %w", err)
	}
	var g errgroup.Group
	for i := range b.cfg.Lanes {
		l := &lane{b: b, producer: fmt.Sprintf("%s.%d", producer.String()[:13], i)}
		g.Go(l.run)
	}
	g.Go(func() error { return b.listen(ctx) })
	g.Go(func() error { return b.watchDurability(ctx) })
	g.Go(func() error { return b.watchEpochs(ctx) })
	<-ctx.Done()
	b.Drain()
	b.queue.close()
	err = g.Wait()
	b.tally.close(len(b.memory.holding()) == 0)
	return err
}

// Drain makes every further Append fail with ErrDraining.
func (b *Buffer) Drain() { b.draining.Store(true) }

// Ping reports whether Redis answers.
func (b *Buffer) Ping(ctx context.Context) error {
	return unavailable("ping Redis", b.rdb.Ping(ctx).Err())
}
