package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	idleTables = 100
	idleConfig = "expose: [" + idleSchema + ".*]\n"
)

// idleCPU is (i): API and flusher with 100 tables of 8 partitions each and
// nothing to do, in percent of one core.
func (b *bench) idleCPU(ctx context.Context) (err error) {
	if !canReadProc() {
		b.progress.say("(i) needs /proc, which this system has not: skipped")
		return nil
	}
	if err := b.stack.idleTables(ctx); err != nil {
		return err
	}
	child, err := b.stack.spawn(ctx, idleConfig)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, child.stop()) }()
	pause(ctx, b.settle)
	percent, err := cpuPercent(ctx, child.PID(), b.idle)
	if err != nil {
		return err
	}
	b.results.add("i", percent)
	return nil
}

// cpuPercent of a core that a process uses over a time.
func cpuPercent(ctx context.Context, pid int, over time.Duration) (float64, error) {
	before, err := readStat(pid)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	pause(ctx, over)
	after, err := readStat(pid)
	return 100 * (after.own - before.own).Seconds() / time.Since(start).Seconds(), err
}

func (s *benchStack) idleTables(ctx context.Context) error {
	err := pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "drop schema if exists "+idleSchema+" cascade; create schema "+idleSchema); err != nil {
			return err
		}
		for i := range idleTables {
			if _, err := tx.Exec(ctx, fmt.Sprintf("create table %s.t%d %s", idleSchema, i, createBenchTable)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("create idle tables: %w", err)
	}
	return nil
}
