package buffer

import (
	"sync/atomic"
)

// WriteBehind, WriteThrough and CacheAside are the ways in which the rows of a
// table get to Postgres. In the last two a write goes to Postgres before it is
// answered; then its row is put into Redis, or taken out of it.
const (
	WriteBehind  = "write-behind"
	WriteThrough = "write-through"
	CacheAside   = "cache-aside"
)

// Target is where the rows of one table go. Make one per table and keep it:
// it remembers which partition the present batch is filling. Safe for
// concurrent use.
type Target struct {
	Table      string
	Partitions int
	Index      bool  // false: only the log is written (cache: none, or no primary key)
	MaxRows    int64 // cap of the backlog, per partition
	MaxBytes   int64

	filling  atomic.Uint32
	strategy atomic.Pointer[string]
	drained  atomic.Bool
}

// Filling is the partition that the present batch of the table is filling.
// Rows whose key Headpond makes are steered there, so that a batch is one
// frame instead of one for each partition.
func (t *Target) Filling() int { return int(t.filling.Load()) % t.Partitions }

// Strategy of the table that is in force: that of the process that was started
// last. Others follow when Redis tells them.
func (t *Target) Strategy() string {
	if s := t.strategy.Load(); s != nil {
		return *s
	}
	return WriteBehind
}

// Direct reports whether writes go to Postgres before they are answered.
func (t *Target) Direct() bool { return t.Strategy() != WriteBehind }

// Follow takes a strategy over.
func (t *Target) Follow(strategy string) {
	t.strategy.Store(&strategy)
	t.drained.Store(false)
}

// Drained reports whether it is known that no row of the table waits in the
// log, nor can come to: it is written directly, and what was accepted before is
// committed. What Postgres has is true then, whatever Redis says.
func (t *Target) Drained() bool { return t.drained.Load() }

// SetDrained notes that it is so.
func (t *Target) SetDrained(is bool) { t.drained.Store(is) }
