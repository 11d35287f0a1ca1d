package buffer

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Durability is what an accepted write survives, read from what Redis is
// really configured to do.
type Durability struct {
	Level    string   // "memory" or "fsync"
	Warnings []string // full sentences for an operator
	Checks   []Check  // all that was looked at
}

// Unsafe gives the check that found that accepted rows may be thrown away, or nil.
func (d *Durability) Unsafe() *Check {
	for i := range d.Checks {
		if d.Checks[i].Unsafe {
			return &d.Checks[i]
		}
	}
	return nil
}

// ErrUnsafeRedis means that Redis may throw accepted rows away.
var ErrUnsafeRedis = errors.New("Redis may evict accepted rows")

// Durability is what was found at the last check.
func (b *Buffer) Durability() Durability { return *b.durability.Load() }

// CheckDurability reads Redis' configuration and state. It returns
// ErrUnsafeRedis for an eviction policy that may evict the log itself. When Redis
// cannot be asked, what was found last stays.
func (b *Buffer) CheckDurability(ctx context.Context) error {
	servers, err := b.redisFacts(ctx)
	if err != nil {
		return err
	}
	d := Durability{Level: "fsync"}
	for _, f := range servers {
		if !f.syncs() {
			d.Level = "memory"
		}
		d.Checks = append(d.Checks, f.checks()...)
	}
	unsafe := d.Unsafe()
	if unsafe != nil {
		d.Level = "memory"
	}
	d.Warnings = Sentences(d.Checks)
	b.durability.Store(&d)
	if unsafe != nil {
		return fmt.Errorf("%w. %s", ErrUnsafeRedis, unsafe.Sentence())
	}
	return nil
}

// watchDurability checks once a minute (Config.CheckEvery), and says what changed.
func (b *Buffer) watchDurability(ctx context.Context) error {
	tick := time.NewTicker(b.cfg.CheckEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		before := b.Durability().Level
		if err := b.CheckDurability(ctx); err != nil && ctx.Err() == nil {
			b.log.Error("durability check", "error", err)
		}
		if now := b.Durability(); now.Level != before {
			b.log.Warn("durability of writes changed", "was", before, "is", now.Level, "why", now.Warnings)
		}
	}
}
