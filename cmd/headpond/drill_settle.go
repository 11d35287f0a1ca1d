package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headpond/headpond/api/client"
)

// drillEnd reads what became of a load that has stopped.
type drillEnd struct {
	api      string // the URL of one of the APIs
	database string
	client   *client.Client

	// What was there before: a stack of the user's may have had a drill already.
	before  ledgerView
	letters int64 // the highest number of a dead letter
}

// begin notes what is there before the load.
func (e *drillEnd) begin(ctx context.Context) (err error) {
	if e.before, err = e.ledger(ctx); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, e.database)
	if err != nil {
		return fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	if err := conn.QueryRow(ctx, `select coalesce(max(id), 0) from headpond.dead_letters`).Scan(&e.letters); err != nil {
		return fmt.Errorf("read dead letters: %w", err)
	}
	return nil
}

// ledger of the tables of the drill.
func (e *drillEnd) ledger(ctx context.Context) (l ledgerView, err error) {
	text, err := fetchStatus(ctx, e.api)
	if err != nil {
		return l, err
	}
	var v statusView
	if err := json.Unmarshal(text, &v); err != nil {
		return l, fmt.Errorf("read status: %w", err)
	}
	for _, name := range drillTables {
		l.add(v.Tables[name].Ledger, 1)
	}
	l.add(e.before, -1)
	return l, nil
}

// add o so many times.
func (l *ledgerView) add(o ledgerView, times int64) {
	l.Accepted += times * o.Accepted
	l.Committed += times * o.Committed
	l.Pending += times * o.Pending
	l.Dead += times * o.Dead
	l.Coalesced += times * o.Coalesced
	l.Lost += times * o.Lost
}

// drain waits until nothing is pending, and gives the ledger then. It gives up
// when nothing moves.
func (e *drillEnd) drain(ctx context.Context, say func(pending int64)) (ledgerView, error) {
	last, moved := int64(-1), time.Now()
	for {
		l, err := e.ledger(ctx)
		switch {
		case err == nil && l.Pending == 0:
			return l, nil
		case err == nil && l.Pending != last:
			last, moved = l.Pending, time.Now()
			say(l.Pending)
		case time.Since(moved) > drillPatience:
			return l, errors.Join(fmt.Errorf("drain: %d rows are pending and nothing is being committed", last), err)
		}
		if pause(ctx, drillSampleEvery); ctx.Err() != nil {
			return l, ctx.Err()
		}
	}
}

// find reads the tables.
func (e *drillEnd) find(ctx context.Context) (*drillFound, error) {
	conn, err := pgx.Connect(ctx, e.database)
	if err != nil {
		return nil, fmt.Errorf("connect to PostgreSQL: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	f := &drillFound{
		Log: make(map[drillToken]int64), Dead: make(map[drillToken]int64),
		Counters: make(map[int64]drillSum), Rows: make(map[int64]drillRow),
	}
	dead := fmt.Sprintf(`select ("row"->>'client')::bigint, ("row"->>'n')::bigint, count(*)
		from headpond.dead_letters where table_name = '%s' and id > %d group by 1, 2`, drillLog, e.letters)
	var t drillToken
	var times, key int64
	var sum drillSum
	var row drillRow
	for _, q := range []struct {
		sql  string
		into []any
		keep func()
	}{
		{`select client, n, count(*) from ` + drillLog + ` group by 1, 2`,
			[]any{&t.Client, &t.N, &times}, func() { f.Log[t] = times }},
		{dead, []any{&t.Client, &t.N, &times}, func() { f.Dead[t] = times }},
		{`select key, count, sum from ` + drillCounters,
			[]any{&key, &sum.Count, &sum.Sum}, func() { f.Counters[key] = sum }},
		{`select key, client, n, coalesce(patch_client, 0), coalesce(patch_n, 0) from ` + drillRows,
			[]any{&key, &row.Put.Client, &row.Put.N, &row.Patch.Client, &row.Patch.N}, func() { f.Rows[key] = row }},
	} {
		rows, err := conn.Query(ctx, q.sql)
		if err == nil {
			_, err = pgx.ForEachRow(rows, q.into, func() error { q.keep(); return nil })
		}
		if err != nil {
			return nil, fmt.Errorf("read the tables of the drill: %w", err)
		}
	}
	return f, nil
}

// reads compares what the API serves of the busiest keys with what was found.
func (e *drillEnd) reads(ctx context.Context, f *drillFound, v *drillVerdict) {
	for key := range int64(coldCounters + 1) {
		if sum, ok := f.Counters[key]; ok {
			e.read(ctx, v, drillCounters, key, fmt.Sprintf(`{"key":%d,"count":%d,"sum":%d}`, key, sum.Count, sum.Sum))
		}
	}
	for key := range int64(coldRows / 10) {
		if r, ok := f.Rows[key]; ok {
			patch := `"patch_client":null,"patch_n":null`
			if r.Patch != (drillToken{}) {
				patch = fmt.Sprintf(`"patch_client":%d,"patch_n":%d`, r.Patch.Client, r.Patch.N)
			}
			e.read(ctx, v, drillRows, key, fmt.Sprintf(`{"key":%d,"client":%d,"n":%d,%s}`, key, r.Put.Client, r.Put.N, patch))
		}
	}
}

func (e *drillEnd) read(ctx context.Context, v *drillVerdict, table string, key int64, want string) {
	ctx, cancel := context.WithTimeout(ctx, drillAnswerTime)
	defer cancel()
	var got json.RawMessage
	var text bytes.Buffer
	_, err := e.client.Get(ctx, table, client.KeyOf(key), &got)
	if err == nil {
		err = json.Compact(&text, got)
	}
	if err != nil || text.String() != want {
		v.problem("reading %s/%d gives %s (%v), and PostgreSQL has %s", table, key, text.String(), err, want)
	}
}
