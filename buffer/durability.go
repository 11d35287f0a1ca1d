package buffer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Durability is what an accepted write survives, read from what Redis is
// really configured to do.
type Durability struct {
	Level    string   // "memory" or "fsync"
	Warnings []string // full sentences for an operator
}

// ErrUnsafeRedis means that Redis may throw accepted rows away.
var ErrUnsafeRedis = errors.New("Redis may evict accepted rows")

// Durability is what was found at the last check.
func (b *Buffer) Durability() Durability { return *b.durability.Load() }

// CheckDurability reads Redis' configuration. It returns ErrUnsafeRedis for an
// eviction policy that may evict the log itself.
func (b *Buffer) CheckDurability(ctx context.Context) error {
	get := func(name string) (string, error) {
		m, err := b.rdb.ConfigGet(ctx, name).Result()
		return m[name], err
	}
	var d Durability
	d.Level = "memory"
	values := make(map[string]string)
	for _, name := range []string{"appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory", "maxmemory-policy"} {
		v, err := get(name)
		if err != nil {
			if classify(err) == unknown || strings.HasPrefix(err.Error(), "LOADING") {
				return unavailable("read Redis configuration", err)
			}
			d.Warnings = append(d.Warnings, "Redis does not let Headpond read its configuration (CONFIG GET); the durability of writes is given as memory.")
			b.durability.Store(&d)
			return nil
		}
		values[name] = v
	}
	switch {
	case values["appendonly"] != "yes":
		d.Warnings = append(d.Warnings, "Redis keeps writes in memory only: a crash of Redis loses what is not yet in Postgres. Mend: CONFIG SET appendonly yes, CONFIG SET appendfsync always.")
	case values["appendfsync"] != "always":
		d.Warnings = append(d.Warnings, "Redis writes its log to disk every second or so: a crash of Redis or of the machine can lose the last seconds of accepted writes. Mend: CONFIG SET appendfsync always.")
	case values["no-appendfsync-on-rewrite"] == "yes":
		d.Warnings = append(d.Warnings, "Redis does not fsync while it rewrites its log: a crash of the machine in that time loses accepted writes. Mend: CONFIG SET no-appendfsync-on-rewrite no.")
	default:
		d.Level = "fsync"
	}
	policy := values["maxmemory-policy"]
	evicts := strings.HasPrefix(policy, "allkeys-")
	if evicts {
		d.Level = "memory"
		d.Warnings = append(d.Warnings, fmt.Sprintf("Redis' maxmemory-policy is %s: it may evict accepted rows. Mend: CONFIG SET maxmemory-policy noeviction (or volatile-lru).", policy))
	}
	b.durability.Store(&d)
	if evicts {
		return fmt.Errorf("%w: maxmemory-policy is %s; set it to noeviction or volatile-lru", ErrUnsafeRedis, policy)
	}
	return nil
}

// watchDurability checks once a minute, and says what changed.
func (b *Buffer) watchDurability(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
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
