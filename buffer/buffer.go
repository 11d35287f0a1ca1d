package buffer

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/headpond/headpond/buffer/table"
)

// Watermarks is what the buffer asks of Postgres: to hold the watermark row of
// a place still while Redis is compared with it.
type Watermarks interface {
	// Hold locks the watermark row of each place, creating it when it is new,
	// calls open with it, and stores the epoch that open gives before it lets go.
	Hold(ctx context.Context, places []Place, open func(Place, Held) (epoch uint64, err error)) error
}

// Held is a watermark that cannot move now.
type Held struct {
	Watermark table.ID
	Opened    uint64 // highest epoch that was ever opened
}

// Buffer is the rows that were accepted and are not yet in Postgres, and the
// cached ones. All methods are safe for concurrent use.
type Buffer struct {
	cfg     Config
	rdb     redis.UniversalClient
	wms     Watermarks
	log     *slog.Logger
	queue   queue
	reads   readQueue
	written placeSet // whose index was not empty when it was looked at last
	hub     hub

	pressure pressure

	durability atomic.Pointer[Durability]
	draining   atomic.Bool
	counters   Counters

	mu         sync.Mutex        // guards places and strategies; not held while talking to Redis or Postgres
	places     []Place           // all that a handshake must open
	strategies map[string]string // of tables that are not write-behind, for new epochs

	shaking sync.Mutex // one handshake at a time in this process
	leases  string     // prefix of lease tokens, unique to this process
	leaseNo atomic.Uint64
}

// Open connects to Redis. url is a redis:// or rediss:// URL; several nodes of
// a cluster are given as addr parameters (redis://a:6379?addr=b:6379). It sets
// the options that exactness depends on: no retries by the driver (the script
// calls are idempotent, and retried here under the same number).
func Open(url string) (redis.UniversalClient, error) {
	if cluster, err := redis.ParseClusterURL(url); err == nil && len(cluster.Addrs) > 1 {
		cluster.ContextTimeoutEnabled = true
		cluster.DisableIdentity = true
		return redis.NewClusterClient(cluster), nil
	}
	o, err := redis.ParseURL(url)
	if err != nil {
		return nil, badURL(url, err)
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
	<-ctx.Done()
	b.Drain()
	b.queue.close()
	return g.Wait()
}

// Drain makes every further Append fail with ErrDraining.
func (b *Buffer) Drain() { b.draining.Store(true) }

// OpenPlaces makes the places ready for writes, and keeps them so: they are
// opened again whenever Redis turns out to be another run.
func (b *Buffer) OpenPlaces(ctx context.Context, places []Place) error {
	b.mu.Lock()
	known := make(map[Place]bool, len(b.places))
	for _, p := range b.places {
		known[p] = true
	}
	b.mu.Unlock()
	var fresh []Place
	for _, p := range places {
		if !known[p] {
			fresh = append(fresh, p)
		}
	}
	// Once the append script is loaded it stays as it is: were Redis another
	// run, it would be missing, and the next write would open every place.
	return b.handshake(ctx, fresh, len(known) == 0)
}

// shake is the handshake with a Redis that may be another run: every place is
// compared with its watermark, and only then writers get their script back.
func (b *Buffer) shake(ctx context.Context) error {
	b.mu.Lock()
	places := append([]Place(nil), b.places...)
	b.mu.Unlock()
	return b.handshake(ctx, places, true)
}

// handshake opens places, and remembers them once they are open.
func (b *Buffer) handshake(ctx context.Context, places []Place, unfence bool) error {
	b.shaking.Lock()
	defer b.shaking.Unlock()
	if err := b.open(ctx, places); err != nil {
		return err
	}
	if unfence {
		if err := loadScripts(ctx, b.rdb, appendScript); err != nil {
			return unavailable("handshake", err)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range places {
		if !slices.Contains(b.places, p) {
			b.places = append(b.places, p)
		}
	}
	return nil
}

// open opens places while their watermarks are held still: one table's after the
// other's, because one that a flusher holds for long must not keep the flushers
// of all others waiting.
func (b *Buffer) open(ctx context.Context, places []Place) error {
	if err := loadScripts(ctx, b.rdb, openScript, readScript, fillScript, settleScript, holdScript, releaseScript); err != nil {
		return unavailable("handshake", err)
	}
	for len(places) > 0 {
		n := 1
		for n < len(places) && places[n].Table == places[0].Table {
			n++
		}
		err := b.wms.Hold(ctx, places[:n], func(p Place, h Held) (uint64, error) { return b.openPlace(ctx, p, h) })
		if err != nil {
			return fmt.Errorf("handshake with Postgres: %w", err)
		}
		places = places[n:]
	}
	return nil
}

func (b *Buffer) openPlace(ctx context.Context, p Place, h Held) (uint64, error) {
	b.mu.Lock()
	strategy := b.strategies[p.Table]
	b.mu.Unlock()
	// A new epoch begins with a watermark that was never settled here.
	if err := b.TouchLists(ctx, p.Table); err != nil {
		return 0, err
	}
	got, err := b.rdb.EvalSha(ctx, openScript.sha, []string{p.log(), p.meta()},
		p.prefix(), h.Watermark.Epoch, h.Watermark.Seq, h.Opened, strategy).StringSlice()
	if err != nil {
		return 0, unavailable("open partition="+p.String(), err)
	}
	epoch, err := strconv.ParseUint(got[0], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("open partition=%s: %w", p, err)
	}
	if got[2] == "1" && h.Opened > 0 {
		b.log.Warn("Redis had lost this partition or gone back: a new epoch was opened; accepted rows that were not in Postgres yet may be lost",
			"partition", p.String(), "epoch", epoch, "seq", got[1], "watermark", h.Watermark.String())
	}
	return epoch, nil
}

// Ping reports whether Redis answers.
func (b *Buffer) Ping(ctx context.Context) error {
	return unavailable("ping Redis", b.rdb.Ping(ctx).Err())
}
