package postgres

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher"
)

// TestTooManyRefusedLeavesNothing: an error of Refuse takes the whole batch back,
// rows and dead letters, in a COPY and in a merge.
func TestTooManyRefusedLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, op := range []table.Op{table.OpInsert, table.OpPut} {
		b := setupFlush(t, intTable, 1)
		load := func(_ context.Context, claims []flusher.Claim) ([]flusher.Part, error) {
			f := &table.Frame{Columns: []byte("id\tv\tw"), Last: table.ID{Epoch: 1, Seq: claims[0].Watermark.Seq + 3000}}
			for i := range 3000 {
				f.Add(op, time.Now().UnixMicro(), fmt.Appendf(nil, "%d\t%d\tx\n", i, 50+i%100))
			}
			return []flusher.Part{{Claim: claims[0], Frames: []*table.Frame{f}}}, nil
		}
		enough := errors.New("enough")
		asked := 0
		refuse := func(most int) func(int, int, string) error {
			return func(count, rows int, why string) error {
				asked = count
				require.Equal(t, 3000, rows)
				require.Equal(t, "23514 t_v_check", why)
				if count > most {
					return enough
				}
				return nil
			}
		}
		batch := flusher.Batch{Table: "t", Partitions: []int{0}, Load: b.numbered(load), Refuse: refuse(7)}
		batch.Orphan = func(context.Context, string) error { return nil }
		_, err := b.Flush(t.Context(), batch)
		require.ErrorIs(t, err, enough)
		require.Equal(t, 8, asked, "it stops at once")
		require.Zero(t, b.count(`select count(*) from t`))
		require.Zero(t, b.count(`select count(*) from headpond.dead_letters`))
		require.Zero(t, b.progress().Watermark.Seq)

		batch.Refuse = refuse(1500)
		_, err = b.Flush(t.Context(), batch)
		require.NoError(t, err)
		require.Equal(t, 1500, b.count(`select count(*) from t`))
		require.Equal(t, 1500, b.count(`select count(*) from headpond.dead_letters`))
	}
}

// TestRaisedInATrigger: a row that a trigger refuses dies alone, whatever SQLSTATE was
// made up for it, in a COPY and in a merge, before and after the row. One of Postgres'
// own is taken for what it is: no row goes, and the error says what to look at.
func TestRaisedInATrigger(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"before", "after"} {
		b := setupFlush(t, fmt.Sprintf(`create table t (id int primary key, v int);
			create function refuse() returns trigger language plpgsql as $$ begin
				if new.v = 13 then raise exception 'custom' using errcode = 'ZX001'; end if;
				if new.v = 14 then raise exception 'custom' using errcode = '53100'; end if;
				return new; end $$;
			create trigger refuse %s insert or update on t for each row execute function refuse()`, when), 1)
		_, err := b.apply("id,v", "i 1|1", "i 2|13", "i 3|3")
		require.NoError(t, err)
		_, err = b.apply("id,v", "p 4|4", "p 3|13", "p 5|5")
		require.NoError(t, err)
		require.Equal(t, []string{"(1,1)", "(3,3)", "(4,4)", "(5,5)"}, b.table())
		require.Equal(t, []string{"2 ZX001", "5 ZX001"}, b.parks())

		_, err = b.apply("id,v", "i 6|6", "i 7|14")
		require.Equal(t, flusher.Environment, flusher.ClassOf(err))
		require.ErrorContains(t, err, "flush table=t: custom (SQLSTATE 53100)")
		require.ErrorContains(t, err, "look at what PostgreSQL says")
		require.EqualValues(t, 6, b.progress().Watermark.Seq)
	}
}

// Values that ALTER TABLE has made unreadable count as refused: there may be many.
func TestRefusalsOfRetypedRows(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, `create table t (id int primary key, v boolean)`, 1)
	f := &table.Frame{Columns: loadTables(t, b.pool)["t"].Header(), Last: table.ID{Epoch: 1, Seq: 1}}
	f.Add(table.OpInsert, 0, []byte("1\tt\n"))
	execute(t, b.pool, `alter table t alter v type date using null`)
	enough := errors.New("enough")
	_, err := b.Flush(t.Context(), flusher.Batch{
		Table: "t", Partitions: []int{0}, Refuse: func(int, int, string) error { return enough },
		Load: func(_ context.Context, claims []flusher.Claim) ([]flusher.Part, error) {
			return []flusher.Part{{Claim: claims[0], Frames: []*table.Frame{f}}}, nil
		},
	})
	require.ErrorIs(t, err, enough)
	require.Zero(t, b.count(`select count(*) from headpond.dead_letters`))
}

// BenchmarkPoison: batches of 10,000 rows with one bad row each, and in turn
// others without, so that what else the machine does is the same for both.
func BenchmarkPoison(b *testing.B) {
	const size = 10_000
	for _, op := range []table.Op{table.OpInsert, table.OpPut} {
		b.Run(op.String(), func(b *testing.B) {
			s := setupFlush(b, benchTable+`; alter table t add constraint views_are_few check (views < 1000000)`, 1)
			known := loadTables(b, s.pool)["t"]
			var stores [2]*Store // the one without knows nothing of the other's bad rows
			for i := range stores {
				stores[i] = NewStore(s.pool, func(string) *table.Table { return known })
			}
			r := rand.New(rand.NewPCG(1, 1)) //nolint:gosec // no secret
			var took [2]time.Duration
			rows, last := 0, table.ID{Epoch: 1}
			for b.Loop() {
				for bad := range 2 {
					f, poison := &table.Frame{Columns: []byte(benchHeader)}, r.IntN(size)
					for i := range size {
						views := i
						if bad == 1 && i == poison {
							views = 1_000_000
						}
						f.Add(op, 0, fmt.Appendf(nil, "%d\tcustomer %d\tnew\t%d.25\t%d\t2026-01-02 03:04:05+00\n", rows+i, i, i%1000, views))
					}
					rows += size
					last.Seq += size
					f.Last = last
					s.Store = stores[bad]
					start := time.Now()
					_, err := s.flush(func(_ context.Context, claims []flusher.Claim) ([]flusher.Part, error) {
						return []flusher.Part{{Claim: claims[0], Frames: []*table.Frame{f}}}, nil
					}, 0)
					took[bad] += time.Since(start)
					require.NoError(b, err)
				}
			}
			b.ReportMetric(float64(rows/2)/took[0].Seconds(), "clean-rows/s")
			b.ReportMetric(float64(rows/2)/took[1].Seconds(), "poison-rows/s")
			b.ReportMetric(took[0].Seconds()/took[1].Seconds(), "ratio")
		})
	}
}
