package buffer

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/headpond/headpond/buffer/table"
)

// Config of a Buffer. The zero value of a field means its default.
type Config struct {
	// Lanes is how many pipelines may be in flight. Measured with single-row
	// POSTs over 64 connections: 2 beats 1 and 4.
	Lanes int
	// CallTimeout bounds one round trip; Budget bounds all tries of a write.
	CallTimeout time.Duration
	Budget      time.Duration
	// LeaseTime is how long a reader may take to load a row.
	LeaseTime time.Duration
	// Process names this process among its Peers; "" when it accepts no rows.
	Process string
	// Peers are the processes that may hold rows; nil when there is only this one.
	Peers Peers
	// Memory is how much of what was acknowledged this process keeps until it is
	// committed, bytes; 0 keeps nothing.
	Memory int64
	// Tally is a directory for what each process has acknowledged, so that what
	// was lost can be counted when a process died together with Redis; "" for none.
	Tally string
	// Places lists all partitions that ever were; nil when this process has all.
	Places func(ctx context.Context) ([]Place, error)
	// Keys gives the keys of a frame's rows, nil when the table has none.
	Keys func(table string, f *table.Frame) ([]string, error)
	// CheckEvery is how often Redis' configuration is looked at.
	CheckEvery time.Duration
	// Caps of what may wait for Postgres: see Measured.
	Caps Caps
	// Tracer makes a span of each script call, for each sampled request that has rows
	// in it; nil for none.
	Tracer trace.Tracer
}

// Default values: a round trip takes under 1 ms and an fsync under 50 ms on a
// healthy machine, so 5 s means trouble; two tries fit into the budget.
const (
	DefaultLanes       = 2
	DefaultCallTimeout = 5 * time.Second
	DefaultBudget      = 10 * time.Second
	DefaultLeaseTime   = 3 * time.Second
	DefaultCheckEvery  = time.Minute
)

func (c Config) withDefaults() Config {
	if c.Lanes == 0 {
		c.Lanes = DefaultLanes
	}
	if c.CallTimeout == 0 {
		c.CallTimeout = DefaultCallTimeout
	}
	if c.Budget == 0 {
		c.Budget = DefaultBudget
	}
	if c.LeaseTime == 0 {
		c.LeaseTime = DefaultLeaseTime
	}
	if c.CheckEvery == 0 {
		c.CheckEvery = DefaultCheckEvery
	}
	if c.Tracer == nil {
		c.Tracer = noop.Tracer{}
	}
	return c
}

// LeaseTime is how long a reader may take to load a row.
func (b *Buffer) LeaseTime() time.Duration { return b.cfg.LeaseTime }

func (c Config) validate() error {
	if c.Lanes < 0 || c.CallTimeout < 0 || c.Budget < 0 || c.LeaseTime < 0 || c.Memory < 0 || c.CheckEvery < 0 ||
		c.Caps.Rows < 0 || c.Caps.Bytes < 0 || c.Caps.TotalRows < 0 || c.Caps.TotalBytes < 0 || c.Caps.Lag < 0 {
		return errors.New("buffer config: no value may be negative")
	}
	return nil
}

// A frame is closed at FrameRows or FrameBytes, whichever comes first: so that
// slicing one row out of it stays cheap. A call is closed at callRows, so that
// Redis is never busy with one for more than a few milliseconds; only a chunk
// that must be all or nothing may exceed it.
const (
	FrameRows  = 512
	FrameBytes = 64 << 10
	callRows   = 4096
)
