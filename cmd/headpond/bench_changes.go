package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"
)

// hotKeys is how many rows take all the changes of (k).
const hotKeys = 1000

// seedHot puts the hot rows into Postgres and gives their keys.
func (b *bench) seedHot(ctx context.Context) ([]string, error) {
	keys := make([]string, hotKeys)
	for i := range keys {
		keys[i] = uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, i)).String()
	}
	_, err := b.stack.pool.Exec(ctx, "insert into "+benchTable+" (id, user_id, kind, amount, payload) select k::uuid, 0, 'click', 0, '{}' from unnest($1::text[]) k", keys)
	if err != nil {
		return nil, fmt.Errorf("insert hot rows: %w", err)
	}
	return keys, nil
}

// hotChanges is (k): patches and increments of few rows, through _bulk, until
// all are committed.
func (b *bench) hotChanges(ctx context.Context) error {
	keys, err := b.seedHot(ctx)
	if err != nil {
		return err
	}
	var bodies [][]byte
	for range bulkBodies {
		var body []byte
		for i := range bulkSize {
			key := keys[rand.N(hotKeys)] //nolint:gosec // no secret
			if i%2 == 0 {
				body = fmt.Appendf(body, `{"op":"increment","table":%q,"key":%q,"row":{"user_id":1,"amount":0.01}}`+"\n", benchTable, key)
			} else {
				body = fmt.Appendf(body, `{"op":"patch","table":%q,"key":%q,"row":{"kind":%q}}`+"\n", benchTable, key, benchKinds[i%len(benchKinds)])
			}
		}
		bodies = append(bodies, body)
	}
	return b.with(ctx, roleAll, func(p *benchApp) error {
		l := &benchLoad{addr: p.addr, requests: posts("_bulk", mediaNDJSON, bodies), conns: bulkConns, count: int64(b.hotOps / bulkSize)}
		return b.profiled("k", func() error {
			start := time.Now()
			if _, err := l.run(ctx); err != nil {
				return err
			}
			end, err := b.stack.committed(ctx, benchTable, int64(b.hotOps))
			if err != nil {
				return err
			}
			b.results.add("k", float64(b.hotOps)/end.Sub(start).Seconds())
			var written, added int64
			if err := b.stack.pool.QueryRow(ctx, "select sum(committed)::bigint from headpond.watermarks where table_name = $1", benchTable).Scan(&written); err != nil {
				return fmt.Errorf("read ledger: %w", err)
			}
			b.results.add("k_written", float64(written)/float64(b.hotOps))
			if err := b.stack.pool.QueryRow(ctx, "select sum(user_id)::bigint from "+benchTable).Scan(&added); err != nil {
				return fmt.Errorf("add up: %w", err)
			}
			return holds("increments", int64(b.hotOps/2), added)
		})
	})
}

// hotUpdates is what (k) is compared with: an UPDATE per request.
func (b *bench) hotUpdates(ctx context.Context) error {
	keys, err := b.seedHot(ctx)
	if err != nil {
		return err
	}
	_, err = b.baseline(ctx, "k_update", func(ctx context.Context, e *benchEvent) error {
		_, err := b.stack.pool.Exec(ctx, "update "+benchTable+" set kind = $1, amount = amount + 0.01 where id = $2",
			e.Kind, keys[rand.N(hotKeys)]) //nolint:gosec // no secret
		return err
	})
	return err
}

// bulkPuts is (l): upserts of distinct keys through _bulk, until committed.
func (b *bench) bulkPuts(ctx context.Context) error {
	source := rand.New(rand.NewPCG(3, 4)) //nolint:gosec // the same rows in every run
	var bodies [][]byte
	for range b.putRows / bulkSize {
		var body []byte
		for range bulkSize {
			id, err := uuid.NewV7()
			if err != nil {
				return fmt.Errorf("make key: %w", err)
			}
			body = fmt.Appendf(body, `{"op":"put","table":%q,"key":"%s","row":`, benchTable, id)
			body = append(randomRow(source).json(body), '}', '\n')
		}
		bodies = append(bodies, body)
	}
	return b.with(ctx, roleAll, func(p *benchApp) error {
		l := &benchLoad{addr: p.addr, requests: posts("_bulk", mediaNDJSON, bodies), conns: bulkConns, count: int64(len(bodies))}
		return b.profiled("l", func() error {
			start := time.Now()
			if _, err := l.run(ctx); err != nil {
				return err
			}
			end, err := b.stack.committed(ctx, benchTable, int64(b.putRows))
			if err != nil {
				return err
			}
			b.results.add("l", float64(b.putRows)/end.Sub(start).Seconds())
			return b.stack.verify(ctx, benchTable, int64(b.putRows))
		})
	})
}

// upsertRows is what (l) is compared with: COPY into a staging table and one
// INSERT ON CONFLICT, by one session.
func (b *bench) upsertRows(ctx context.Context) error {
	if _, err := b.rows.file.Seek(0, 0); err != nil {
		return fmt.Errorf("read rows: %w", err)
	}
	conn, err := b.stack.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	defer conn.Release()
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		start := time.Now()
		if _, err := tx.Exec(ctx, "create temp table stage (like "+benchTable+") on commit drop"); err != nil {
			return fmt.Errorf("stage: %w", err)
		}
		const columns = "id, user_id, kind, amount, payload, created_at"
		tag, err := tx.Conn().PgConn().CopyFrom(ctx, b.rows.file, "copy stage ("+columns+") from stdin")
		if err != nil {
			return fmt.Errorf("copy: %w", err)
		}
		_, err = tx.Exec(ctx, "insert into "+benchTable+" ("+columns+") select "+columns+` from stage order by id on conflict (id) do update
			set user_id = excluded.user_id, kind = excluded.kind, amount = excluded.amount, payload = excluded.payload, created_at = excluded.created_at`)
		if err != nil {
			return fmt.Errorf("upsert: %w", err)
		}
		b.results.add("l_upsert", float64(tag.RowsAffected())/time.Since(start).Seconds())
		return nil
	})
}

// singlePuts is (m): PUTs of single rows at as many connections as d64.
func (b *bench) singlePuts(ctx context.Context) error {
	requests := make([][]byte, 0, 16*singleBodies)
	for i := range cap(requests) {
		body := b.rows.single[i%singleBodies]
		requests = append(requests, fmt.Appendf(nil, "PUT /v1/%s/%s HTTP/1.1\r\nHost: bench\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s",
			benchTable, uuid.NewSHA1(uuid.NameSpaceURL, fmt.Append(nil, i)), echo.MIMEApplicationJSON, len(body), body))
	}
	return b.with(ctx, roleAll, func(p *benchApp) error {
		return b.profiled("m64", func() error {
			_, err := b.peakAndPace(ctx, "m64", &benchLoad{addr: p.addr, requests: requests, conns: 64})
			return err
		})
	})
}
