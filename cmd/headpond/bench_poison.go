package main

import (
	"bytes"
	"context"
	"fmt"
	"time"
)

// poisonEach is how many rows come to one that PostgreSQL refuses.
const poisonEach = 10_000

// poison is (q): NDJSON to committed into a table with a constraint. In one of
// the two runs it refuses a row of each poisonEach, and every other row must be
// committed all the same.
func (b *bench) poison(ctx context.Context, key string, bad bool) error {
	const name = benchTable + "_amount"
	drop := "alter table " + benchTable + " drop constraint if exists " + name
	if _, err := b.stack.pool.Exec(ctx, drop+"; alter table "+benchTable+" add constraint "+name+" check (amount < 1000000)"); err != nil {
		return fmt.Errorf("add constraint: %w", err)
	}
	defer func() { _, _ = b.stack.pool.Exec(ctx, drop) }()
	bodies := b.rows.bulk[:poisonEach/bulkSize]
	rows, refused := int64(b.bulkRows/poisonEach*poisonEach), int64(0)
	if bad {
		bodies = append([][]byte{poisoned(bodies[0])}, bodies[1:]...)
		refused = rows / poisonEach
	}
	return b.with(ctx, roleAll, func(p *benchApp) error {
		l := &benchLoad{addr: p.addr, requests: posts(benchTable, mediaNDJSON, bodies), conns: bulkConns, count: rows / bulkSize}
		return b.profiled(key, func() error {
			start := time.Now()
			if _, err := l.run(ctx); err != nil {
				return err
			}
			end, err := b.stack.settled(ctx, benchTable, rows, refused)
			if err != nil {
				return err
			}
			b.results.add(key, float64(rows)/end.Sub(start).Seconds())
			var there, named int64
			if err := b.stack.pool.QueryRow(ctx, "select (select count(*) from "+benchTable+"), (select count(*) from headpond.dead_letters where table_name = $1 and constraint_name = $2)",
				benchTable, name).Scan(&there, &named); err != nil {
				return fmt.Errorf("count rows: %w", err)
			}
			if there != rows-refused || named != refused {
				return fmt.Errorf("of %d rows, %d of them bad, %d are in PostgreSQL and %d are dead letters", rows, refused, there, named)
			}
			return nil
		})
	})
}

// poisoned is a body whose middle row breaks the constraint.
func poisoned(body []byte) []byte {
	lines := bytes.SplitAfter(body, []byte("\n"))
	lines[bulkSize/2] = []byte(`{"user_id":1,"kind":"click","amount":1000000,"payload":{}}` + "\n")
	return bytes.Join(lines, nil)
}
