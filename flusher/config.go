package flusher

import (
	"errors"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Table is how one table is flushed.
type Table struct {
	Name        string
	Partitions  int
	Linger      time.Duration // a row waits at most so long for company
	TargetLag   time.Duration // batches are sized so that flushing one takes at most half of it
	Retain      time.Duration // committed frames stay in the log for so long,
	RetainBytes int64         // at most so many bytes of them per partition

	PoisonLimit int // rows that Postgres may refuse within a minute, or 1 % of all if that is more; 0: any number

	DatabaseWins bool // see Batch
	Lists        bool // lists of it are cached, and go with each flush
}

// Config of a Flusher. The zero value of a field means its default.
type Config struct {
	Workers int           // batches in flight
	Sweep   time.Duration // how often every partition is looked at, notice or not
	Drain   time.Duration // how long a stop may take to flush what is left
	Tracer  trace.Tracer  // of the spans of flushes and of the writes that they commit; nil for none
}

// Default values. Four workers keep two or three COPYs busy while another
// reads; more only help when Postgres is far away. A sweep of 800 partitions
// costs about 2 ms, so one every two seconds is 0.1 % of a core.
const (
	DefaultWorkers = 4
	DefaultSweep   = 2 * time.Second
	DefaultDrain   = 20 * time.Second
)

func (c Config) withDefaults() Config {
	if c.Workers == 0 {
		c.Workers = DefaultWorkers
	}
	if c.Sweep == 0 {
		c.Sweep = DefaultSweep
	}
	if c.Drain == 0 {
		c.Drain = DefaultDrain
	}
	if c.Tracer == nil {
		c.Tracer = noop.Tracer{}
	}
	return c
}

func (c Config) validate() error {
	if c.Workers < 0 || c.Sweep < 0 || c.Drain < 0 {
		return errors.New("flusher config: no value may be negative")
	}
	return nil
}
