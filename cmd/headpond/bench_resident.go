package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// The child serves the bench's tables, and is not to drain when it is stopped.
const residentConfig = "expose: [public." + benchTable + "]\nflusher: {drain: 100ms}\n"

// residentMemory is (j): Headpond's own memory while a backlog waits, against
// that of the same process before. The flusher runs, and cannot commit: the
// bench holds the watermarks.
func (b *bench) residentMemory(ctx context.Context) (err error) {
	if !canReadProc() {
		b.progress.say("(j) needs /proc, which this system has not: skipped")
		return nil
	}
	child, err := b.stack.spawn(ctx, residentConfig)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, child.stop()) }()
	pause(ctx, b.settle)
	idle, err := memoryOf(child.PID())
	if err != nil {
		return err
	}
	b.results.add("j_idle", idle.resident)
	held := b.stack.holdWatermarks(ctx, func() error { return b.withBacklog(ctx, child) })
	if held != nil {
		return held
	}
	if err := b.stack.verify(ctx, benchTable, int64(b.backlog)); err != nil {
		return err
	}
	peak, err := memoryOf(child.PID())
	b.results.add("j_peak", peak.peak)
	return err
}

func (b *bench) withBacklog(ctx context.Context, child *benchChild) error {
	if _, err := b.fill(ctx, child.addr, benchTable, b.backlog); err != nil {
		return err
	}
	// What the requests left behind is given back to the system little by
	// little; what is asked is what the backlog itself costs.
	pause(ctx, 2*b.settle)
	busy, err := cpuPercent(ctx, child.PID(), 2*time.Second)
	if err != nil {
		return err
	}
	waiting, err := memoryOf(child.PID())
	b.results.add("j_cpu", busy)
	b.results.add("j_backlog", waiting.resident)
	return err
}

// holdWatermarks keeps every flusher from the bench's table while f runs, as
// another flusher at work would.
func (s *benchStack) holdWatermarks(ctx context.Context, f func() error) error {
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "select from headpond.watermarks where table_name = $1 for update", benchTable); err != nil {
			return fmt.Errorf("hold watermarks: %w", err)
		}
		return f()
	})
}
