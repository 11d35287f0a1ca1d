package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/labstack/echo/v4"
	"golang.org/x/sync/errgroup"
)

// readKeys is how many rows are read in (n), (o) and (p): all fit in the cache.
const readKeys = hotKeys

// gets makes requests for rows of the bench's table.
func gets(keys []string) (out [][]byte) {
	for _, k := range keys {
		out = append(out, fmt.Appendf(nil, "GET /v1/%s/%s HTTP/1.1\r\nHost: bench\r\n\r\n", benchTable, k))
	}
	return out
}

// readHits is (n): GETs of rows that are in the cache.
func (b *bench) readHits(ctx context.Context) error {
	keys, err := b.seedRead(ctx)
	if err != nil {
		return err
	}
	return b.with(ctx, roleAll, func(p *benchApp) error {
		load := &benchLoad{addr: p.addr, requests: gets(keys), conns: 16, count: readKeys}
		if _, err := load.run(ctx); err != nil { // the first GET of each loads it
			return err
		}
		if err := allHits(ctx, load); err != nil {
			return err
		}
		load.conns, load.count = 64, 0
		return b.profiled("n64", func() error {
			_, err := b.peakAndPace(ctx, "n64", load)
			return err
		})
	})
}

// allHits checks that each row is answered from the cache.
func allHits(ctx context.Context, l *benchLoad) error {
	c, err := dialBench(ctx, l.addr)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	for _, r := range l.requests {
		a, err := c.exchange(r)
		if err != nil {
			return err
		}
		if a.status != 200 || !isHit(a.head) {
			return fmt.Errorf("not a hit: %s\n%s", a.head, a.body)
		}
	}
	return nil
}

// seedRead puts the rows into Postgres and gives their keys.
func (b *bench) seedRead(ctx context.Context) ([]string, error) {
	keys, err := b.seedHot(ctx)
	if err != nil {
		return nil, err
	}
	_, err = b.stack.pool.Exec(ctx, "update "+benchTable+` set user_id = 123456, amount = 512.25, payload = '{"page": "/item/12345", "ref": "newsletter", "ms": 512}'`)
	if err != nil {
		return nil, fmt.Errorf("fill rows: %w", err)
	}
	return keys, nil
}

// benchStored is a row as a handler answers with it that reads it by itself.
type benchStored struct {
	ID string `json:"id"`
	benchEvent

	CreatedAt time.Time `json:"created_at"`
}

func (b *bench) selectStored(ctx context.Context, key string) (r benchStored, err error) {
	err = b.stack.pool.QueryRow(ctx, "select id::text, user_id, kind, amount::text, payload, created_at from "+benchTable+" where id = $1", key).
		Scan(&r.ID, &r.UserID, &r.Kind, &r.Amount, &r.Payload, &r.CreatedAt)
	if err != nil {
		return r, fmt.Errorf("read row: %w", err)
	}
	return r, nil
}

// constantRow is (o): an Echo handler that answers every GET with the same row.
func (b *bench) constantRow(ctx context.Context) error {
	keys, err := b.seedRead(ctx)
	if err != nil {
		return err
	}
	stored, err := b.selectStored(ctx, keys[0])
	if err != nil {
		return err
	}
	row, err := json.Marshal(stored)
	if err != nil {
		return fmt.Errorf("encode row: %w", err)
	}
	return b.readBaseline(ctx, "o64", keys, func(context.Context, string) ([]byte, error) { return row, nil })
}

// selectEach is (p): an Echo handler that reads the row from Postgres.
func (b *bench) selectEach(ctx context.Context) error {
	keys, err := b.seedRead(ctx)
	if err != nil {
		return err
	}
	return b.readBaseline(ctx, "p64", keys, func(ctx context.Context, key string) ([]byte, error) {
		row, err := b.selectStored(ctx, key)
		if err != nil {
			return nil, err
		}
		return json.Marshal(row)
	})
}

// readBaseline serves an Echo handler for GET and measures it.
func (b *bench) readBaseline(ctx context.Context, key string, keys []string, read func(context.Context, string) ([]byte, error)) error {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.GET("/v1/:table/:key", func(c echo.Context) error {
		row, err := read(c.Request().Context(), c.Param("key"))
		if err != nil {
			return err
		}
		return c.Blob(http.StatusOK, echo.MIMEApplicationJSON, row)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	srv := &http.Server{Handler: e, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(listener) }()
	defer func() { _ = srv.Close() }()
	_, err = b.peakAndPace(ctx, key, &benchLoad{addr: listener.Addr().String(), requests: gets(keys), conns: 64})
	return err
}

// selectPool is the second part of (p): the same SELECT without HTTP, from as
// many goroutines as the pool has connections.
func (b *bench) selectPool(ctx context.Context) error {
	keys, err := b.seedRead(ctx)
	if err != nil {
		return err
	}
	run := func(lasts time.Duration) (rows int64, took time.Duration, err error) {
		var done atomic.Int64
		var g errgroup.Group
		start := time.Now()
		for range insertPool {
			g.Go(func() error {
				for time.Since(start) < lasts {
					if _, err := b.selectStored(ctx, keys[done.Add(1)%readKeys]); err != nil {
						return err
					}
				}
				return nil
			})
		}
		err = g.Wait()
		return done.Load(), time.Since(start), err
	}
	if _, _, err := run(b.warm); err != nil {
		return err
	}
	rows, took, err := run(b.load)
	if err != nil {
		return err
	}
	b.results.add("p_pool", float64(rows)/took.Seconds())
	return nil
}
