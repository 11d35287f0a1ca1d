package postgres

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher"
)

const benchTable = `create table t (id bigint primary key, customer text not null, status text not null, total numeric(12,2), views bigint not null, at timestamptz)`

const (
	benchRows   = 100_000
	benchFrame  = 500
	benchHeader = "id\tcustomer\tstatus\ttotal\tviews\tat"
)

// benchFrames cuts operations into frames.
func benchFrames(after table.ID, op table.Op, line func(i int) []byte) (out []*table.Frame) {
	for i := 0; i < benchRows; i += benchFrame {
		f := &table.Frame{Columns: []byte(benchHeader), Last: table.ID{Epoch: 1, Seq: after.Seq + uint64(i+benchFrame)}}
		for j := range benchFrame {
			f.Add(op, time.Now().UnixMicro(), line(i+j))
		}
		out = append(out, f)
	}
	return out
}

func putLine(i int) []byte {
	return fmt.Appendf(nil, "%d\tcustomer %d\tnew\t%d.25\t%d\t2026-01-02 03:04:05+00\n", i*7919%benchRows, i, i%1000, i)
}

func incrementLine(i int) []byte {
	return fmt.Appendf(nil, "%d\tcustomer\tnew\t1.25\t%d\t2026-01-02 03:04:05+00\t4=3\n", i*7919%1000, i)
}

// BenchmarkMerge measures batches of 100,000 operations through Flush, and what
// SQL alone needs for the same: COPY into a temporary table, then one INSERT
// with ON CONFLICT. "there": the rows exist already.
func BenchmarkMerge(b *testing.B) {
	for _, c := range []struct {
		name string
		op   table.Op
		line func(int) []byte
		seed string
		sql  string
	}{
		{"puts", table.OpPut, putLine, "", putSQL},
		{"puts-there", table.OpPut, putLine, benchSeed, putSQL},
		{"increments", table.OpIncrement, incrementLine, benchSeed, incrementSQL},
	} {
		b.Run(c.name+"/flush", func(b *testing.B) {
			s := setupFlush(b, benchTable, 1)
			known := loadTables(b, s.pool)["t"]
			s.Store = NewStore(s.pool, func(string) *table.Table { return known })
			for b.Loop() {
				b.StopTimer()
				execute(b, s.pool, "truncate t; "+c.seed+"; checkpoint")
				frames := benchFrames(s.progress().Watermark, c.op, c.line)
				b.StartTimer()
				_, err := s.flush(func(_ context.Context, claims []flusher.Claim) ([]flusher.Part, error) {
					return []flusher.Part{{Claim: claims[0], Frames: frames}}, nil
				}, 0)
				require.NoError(b, err)
			}
		})
		b.Run(c.name+"/copy", func(b *testing.B) {
			s := setupFlush(b, benchTable, 1)
			var lines bytes.Buffer
			for i := range benchRows {
				lines.Write(c.line(i))
			}
			conn, err := s.pool.Acquire(b.Context())
			require.NoError(b, err)
			defer conn.Release()
			execute(b, s.pool, "select 1")
			_, err = conn.Conn().PgConn().Exec(b.Context(), "create temp table staging (like t, delta text) on commit delete rows").ReadAll()
			require.NoError(b, err)
			columns := map[bool]string{true: "", false: ", delta"}[c.op == table.OpPut]
			for b.Loop() {
				b.StopTimer()
				execute(b, s.pool, "truncate t; "+c.seed+"; checkpoint")
				b.StartTimer()
				for _, sql := range []string{"begin", "", c.sql, "commit"} {
					if sql == "" {
						_, err = conn.Conn().PgConn().CopyFrom(b.Context(), bytes.NewReader(lines.Bytes()),
							"copy staging (id, customer, status, total, views, at"+columns+") from stdin")
					} else {
						_, err = conn.Conn().PgConn().Exec(b.Context(), sql).ReadAll()
					}
					require.NoError(b, err)
				}
			}
		})
	}
}

const (
	benchSeed = `insert into t select i, 'before', 'old', 1, 1, now() from generate_series(0, 99999) i; analyze t`
	putSQL    = `insert into t select id, customer, status, total, views, at from staging on conflict (id) do update
		set customer = excluded.customer, status = excluded.status, total = excluded.total, views = excluded.views, at = excluded.at`
	incrementSQL = `insert into t select id, min(customer), min(status), min(total), sum(substr(delta, 3)::numeric), min(at) from staging group by id
		on conflict (id) do update set views = t.views + excluded.views`
)
