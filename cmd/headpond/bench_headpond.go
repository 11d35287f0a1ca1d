package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/labstack/echo/v4"
)

const mediaNDJSON = "application/x-ndjson"

// headpondSingle is (d): single rows, the flusher running.
func (b *bench) headpondSingle(ctx context.Context, conns int) error {
	key := fmt.Sprintf("d%d", conns)
	return b.with(ctx, roleAll, func(p *benchApp) error {
		var accepted int64
		load := &benchLoad{addr: p.addr, requests: posts(benchTable, echo.MIMEApplicationJSON, b.rows.single), conns: conns}
		run := func() (err error) {
			accepted, err = b.peakAndPace(ctx, key, load)
			return err
		}
		if conns == 64 {
			peak := run
			run = func() error { return b.profiled(key, peak) }
		}
		if err := run(); err != nil {
			return err
		}
		return b.stack.verify(ctx, benchTable, accepted)
	})
}

// bulkConns is how many connections send NDJSON: enough that one request is
// being read while another waits for Redis.
const bulkConns = 16

func (b *bench) fill(ctx context.Context, addr, table string, rows int) (*benchAnswer, error) {
	l := &benchLoad{addr: addr, requests: posts(table, mediaNDJSON, b.rows.bulk), conns: bulkConns, count: int64(rows / bulkSize)}
	return l.run(ctx)
}

// headpondBulk is (e): from the first byte sent to the last row committed.
func (b *bench) headpondBulk(ctx context.Context, table, key string) error {
	rows := int64(b.bulkRows)
	return b.with(ctx, roleAll, func(p *benchApp) error {
		err := b.profiled(key, func() error {
			start := time.Now()
			answered, err := b.fill(ctx, p.addr, table, b.bulkRows)
			if err != nil {
				return err
			}
			end, err := b.stack.committed(ctx, table, rows)
			b.results.add(key, float64(rows)/end.Sub(start).Seconds())
			b.results.add(key+"_accepted", bulkSize*answered.perSecond())
			return err
		})
		if err != nil {
			return err
		}
		return b.stack.verify(ctx, table, rows)
	})
}

// copyRows is (f): the same rows by one session in one transaction, as psql's
// \copy does it.
func (b *bench) copyRows(ctx context.Context) error {
	perSecond, err := b.copyOnce(ctx)
	b.results.add("f", perSecond)
	return err
}

// warmUp lets a Postgres that was just made create its log segments, which
// later transactions reuse: else whoever comes first pays for them.
func (b *bench) warmUp(ctx context.Context) error {
	for range 3 {
		if _, err := b.copyOnce(ctx); err != nil {
			return err
		}
		if err := b.stack.reset(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) copyOnce(ctx context.Context) (perSecond float64, err error) {
	if _, err := b.rows.file.Seek(0, io.SeekStart); err != nil {
		return 0, fmt.Errorf("read rows: %w", err)
	}
	conn, err := b.stack.pool.Acquire(ctx)
	if err != nil {
		return 0, fmt.Errorf("connect: %w", err)
	}
	defer conn.Release()
	start := time.Now()
	tag, err := conn.Conn().PgConn().CopyFrom(ctx, b.rows.file, "copy "+benchTable+" (id, user_id, kind, amount, payload, created_at) from stdin")
	if err != nil {
		return 0, fmt.Errorf("copy: %w", err)
	}
	return float64(tag.RowsAffected()) / time.Since(start).Seconds(), nil
}

// drainLog is (g): the log is filled while no flusher runs; then one runs
// alone.
func (b *bench) drainLog(ctx context.Context) error {
	rows := int64(b.bulkRows)
	err := b.with(ctx, roleAPI, func(p *benchApp) error {
		_, err := b.fill(ctx, p.addr, benchTable, b.bulkRows)
		return err
	})
	if err != nil {
		return err
	}
	return b.profiled("g", func() error {
		return b.with(ctx, roleFlusher, func(p *benchApp) error {
			end, err := b.stack.committed(ctx, benchTable, rows)
			if err != nil {
				return err
			}
			b.results.add("g", float64(rows)/end.Sub(p.ready).Seconds())
			return b.stack.verify(ctx, benchTable, rows)
		})
	})
}
