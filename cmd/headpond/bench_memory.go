package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"
)

// memoryPerRow is (h): what Redis holds for a row that waits, index included.
// Rows that come alone share a frame with fewer others, so both are measured.
func (b *bench) memoryPerRow(ctx context.Context) error {
	few := b.memoryRows / 4 // single rows take longer
	err := b.memoryOf(ctx, "h_bulk", b.memoryRows, func(p *benchApp) error {
		_, err := b.fill(ctx, p.addr, benchTable, b.memoryRows)
		return err
	})
	if err != nil {
		return err
	}
	if err := b.stack.reset(ctx); err != nil {
		return err
	}
	return b.memoryOf(ctx, "h_single", few, func(p *benchApp) error {
		l := &benchLoad{addr: p.addr, requests: posts(benchTable, echo.MIMEApplicationJSON, b.rows.single), conns: 64, count: int64(few)}
		_, err := l.run(ctx)
		return err
	})
}

func (b *bench) memoryOf(ctx context.Context, key string, rows int, fill func(*benchApp) error) error {
	return b.with(ctx, roleAPI, func(p *benchApp) error {
		before, err := b.stack.usedMemory(ctx)
		if err != nil {
			return err
		}
		if err := fill(p); err != nil {
			return err
		}
		after, err := b.stack.usedMemory(ctx)
		b.results.add(key, float64(after-before)/float64(rows))
		return err
	})
}

// usedMemory of Redis without the buffers of its clients, which say nothing
// about rows.
func (s *benchStack) usedMemory(ctx context.Context) (int64, error) {
	text, err := s.rdb.Info(ctx, "memory").Result()
	if err != nil {
		return 0, fmt.Errorf("read memory of Redis: %w", err)
	}
	number := func(name string) int64 {
		_, after, _ := strings.Cut(text, "\n"+name+":")
		digits, _, _ := strings.Cut(after, "\r")
		n, _ := strconv.ParseInt(digits, 10, 64) // 0 where this Redis does not say
		return n
	}
	return number("used_memory") - number("mem_clients_normal") - number("mem_aof_buffer"), nil
}
