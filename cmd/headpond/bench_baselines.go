package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"
	"github.com/redis/go-redis/v9"
)

// insertPool is the size of the pool of (b).
const insertPool = 64

// The keys of (c).
const (
	naiveHash   = "headpond_bench:rows"
	naiveStream = "headpond_bench:stream"
)

// benchEvent is the body as (a), (b) and (c) read it.
type benchEvent struct {
	UserID  int64           `json:"user_id"`
	Kind    string          `json:"kind"`
	Amount  json.Number     `json:"amount"`
	Payload json.RawMessage `json:"payload"`
}

// baseline serves an Echo handler that parses the body, does save, and answers
// 202; and measures it.
func (b *bench) baseline(ctx context.Context, key string, save func(context.Context, *benchEvent) error) (int64, error) {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.POST("/v1/:table", func(c echo.Context) error {
		var event benchEvent
		if err := json.NewDecoder(c.Request().Body).Decode(&event); err != nil {
			return echo.NewHTTPError(http.StatusBadRequest, err.Error())
		}
		if err := save(c.Request().Context(), &event); err != nil {
			return err
		}
		return c.NoContent(http.StatusAccepted)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback
	if err != nil {
		return 0, fmt.Errorf("listen: %w", err)
	}
	srv := &http.Server{Handler: e, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(listener) }()
	defer func() { _ = srv.Close() }()
	return b.peakAndPace(ctx, key, &benchLoad{
		addr: listener.Addr().String(), requests: posts(benchTable, echo.MIMEApplicationJSON, b.rows.single), conns: 64,
	})
}

// holds checks that a baseline did what it is compared for.
func holds(what string, answered, rows int64) error {
	if answered != rows {
		return fmt.Errorf("%s: %d requests were answered and %d rows are there", what, answered, rows)
	}
	return nil
}

// parseOnly is (a).
func (b *bench) parseOnly(ctx context.Context) error {
	_, err := b.baseline(ctx, "a64", func(context.Context, *benchEvent) error { return nil })
	return err
}

// insertEach is (b). The key is made as Headpond makes it.
func (b *bench) insertEach(ctx context.Context) error {
	answered, err := b.baseline(ctx, "b64", func(ctx context.Context, e *benchEvent) error {
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		_, err = b.stack.pool.Exec(ctx, "insert into "+benchTable+" (id, user_id, kind, amount, payload) values ($1, $2, $3, $4, $5)",
			id.String(), e.UserID, e.Kind, e.Amount.String(), string(e.Payload))
		return err
	})
	if err != nil {
		return err
	}
	var rows int64
	if err := b.stack.pool.QueryRow(ctx, "select count(*) from "+benchTable).Scan(&rows); err != nil {
		return fmt.Errorf("count rows: %w", err)
	}
	return holds("INSERT", answered, rows)
}

// naiveBehind is (c): what is written first by whoever needs a write-behind.
// Both commands go in one round trip, and nothing flushes them, which is kind
// to it.
func (b *bench) naiveBehind(ctx context.Context) error {
	answered, err := b.baseline(ctx, "c64", func(ctx context.Context, e *benchEvent) error {
		id, err := uuid.NewV7()
		if err != nil {
			return err
		}
		row, err := json.Marshal(e)
		if err != nil {
			return err
		}
		_, err = b.stack.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			p.HSet(ctx, naiveHash, id.String(), row)
			p.XAdd(ctx, &redis.XAddArgs{Stream: naiveStream, Values: []any{"id", id.String(), "row", row}})
			return nil
		})
		return err
	})
	if err != nil {
		return err
	}
	rows, err := b.stack.rdb.HLen(ctx, naiveHash).Result()
	if err != nil {
		return fmt.Errorf("count rows: %w", err)
	}
	return holds("HSET and XADD", answered, rows)
}

// peakAndPace measures the peak of a server in a closed loop, and its latency
// at pacedShare of that in an open one. It gives the number of requests that
// were answered in all.
func (b *bench) peakAndPace(ctx context.Context, key string, l *benchLoad) (int64, error) {
	l.lasts = b.warm
	warm, err := l.run(ctx)
	if err != nil {
		return 0, err
	}
	l.lasts = b.load
	peak, err := l.run(ctx)
	if err != nil {
		return 0, err
	}
	b.results.add(key, peak.perSecond())
	all := warm.requests + peak.requests
	if l.conns != 64 {
		b.results.latency(key, peak)
		return all, nil
	}
	l.lasts, l.rate = b.paced, pacedShare*peak.perSecond()
	paced, err := l.run(ctx)
	if err != nil {
		return 0, err
	}
	b.results.latency(key, paced)
	return all + paced.requests, nil
}

// pacedShare of the peak is what the open loop sends: a busy server, but not
// one whose queue grows without end.
const pacedShare = 0.6
