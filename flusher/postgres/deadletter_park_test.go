package postgres

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher"
)

const parkDDL = `create table t (id int primary key, v int check (v < 100)); insert into t values (1, 90)`

// parks are the dead letters: seq, SQLSTATE, and the seq that they are parked behind.
func (b *flushBundle) parks() []string {
	return b.rows(`select concat_ws(' ', seq, sqlstate, parked_seq) from headpond.dead_letters order by seq`)
}

// A change is parked when what it was computed on is a dead letter, or parked, in
// an earlier batch or in its own; and not when it was computed on anything else.
func TestParkedAcrossBatches(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, parkDDL, 1)
	for _, batch := range [][]string{
		{"i 2|100", "n 1|110|1=20"},                                   // 1, 2: refused
		{"n 1|111|1=1;1-2", "u 2|5|1;1-1"},                            // 3, 4: parked
		{"n 1|112|1=1;1-3", "n 1|113|1=1;"},                           // 5, 6: behind what is parked
		{"n 1|91|1=1"},                                                // 7: computed on what Postgres has
		{"n 1|92|1=1;1-7"},                                            // 8: and this one on it
		{"p 2|1", "n 2|2|1=1;", "i 3|7"},                              // 9 to 11
		{"n 3|107|1=100;1-11", "n 3|8|1=1;", "d 3|"},                  // 12 to 14: coalesced into the delete
		{"n 2|102|1=100;1-10", "n 2|103|1=1;", "p 2|3", "n 2|4|1=1;"}, // 15 to 18: superseded
		{"n 2|104|1=100;1-18", "n 2|105|1=1;", "n 2|6|1=2"},           // 19 to 21: the last one was computed on what Postgres has
	} {
		_, err := b.apply("id,v", batch...)
		require.NoError(t, err)
	}
	require.Equal(t, []string{"(1,92)", "(2,6)"}, b.table())
	require.Equal(t, []string{"1 23514", "2 23514", "3 HP002 2", "4 HP002 1", "5 HP002 2", "6 HP002 2", "19 23514", "20 HP002 19"}, b.parks())
	p := b.progress()
	require.EqualValues(t, 21, p.Watermark.Seq)
	require.EqualValues(t, 21, p.Committed+p.Coalesced+p.Dead)
	require.EqualValues(t, 8, p.Dead)
}

// A change on its way whose base was discarded is not applied: its row never was.
func TestParkedBehindWhatWasDiscarded(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, parkDDL, 1)
	_, err := b.apply("id,v", "i 2|100")
	require.NoError(t, err)
	n, err := NewLetters(b.pool).DiscardAll(t.Context(), buffer.LetterFilter{Table: "t", Limit: 10})
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	_, err = b.apply("id,v", "u 2|5|1;1-1", "n 2|6|1=1;")
	require.NoError(t, err)
	require.Equal(t, []string{"(1,90)"}, b.table())
	require.Equal(t, []string{"2 HP002 1", "3 HP002 1"}, b.parks())
	missed, err := b.DeadBetween(t.Context(), buffer.Place{Table: "t"}, 0, 1)
	require.NoError(t, err)
	require.Equal(t, []buffer.DeadRow{{Key: "2", ID: table.ID{Epoch: 1, Seq: 1}}}, missed)
}

// What lost against the database is no reason to park: later changes are applied
// to what the database has.
func TestNotParkedBehindTheDatabase(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, parkDDL, 1)
	_, err := b.apply("id,v", "n 1|110|1=20")
	require.NoError(t, err)
	_, err = b.pool.Exec(t.Context(), `update headpond.dead_letters set sqlstate = 'HP001'`)
	require.NoError(t, err)
	_, err = b.apply("id,v", "n 1|111|1=1;1-1")
	require.NoError(t, err)
	require.Equal(t, []string{"(1,91)"}, b.table())
}

// replaying gives a load of operations each of which replays a letter of
// partition 0, by its seq; 0 for none.
func (b *flushBundle) replaying(of []uint64, words ...string) flusher.Load {
	return func(_ context.Context, claims []flusher.Claim) ([]flusher.Part, error) {
		p := flusher.Part{Claim: claims[0]}
		for i, w := range words {
			f := operations(table.ID{Seq: claims[0].Watermark.Seq + uint64(i)}, "", w)
			if f.Columns = b.lookup("t").Header(); of[i] > 0 {
				f.Columns = table.Replaying(f.Columns, table.Letter{ID: table.ID{Epoch: 1, Seq: of[i]}})
			}
			p.Frames = append(p.Frames, f)
		}
		return []flusher.Part{p}, nil
	}
}

// flushAsIs flushes frames whose column lists are not touched.
func (b *flushBundle) flushAsIs(load flusher.Load) (*flusher.Report, error) {
	return b.Flush(context.Background(), flusher.Batch{
		Table: "t", Partitions: []int{0}, Load: load, Orphan: func(context.Context, string) error { return nil },
	})
}

// A letter counts once: in one batch, in several, and when a flush fails in
// between. What is left out must leave the buffer's index.
func TestReplayTakesTheLetter(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, parkDDL, 1)
	place := buffer.Place{Table: "t"}
	_, err := b.apply("id,v", "n 1|110|1=20", "i 2|100")
	require.NoError(t, err)
	exec := func(sql string) {
		t.Helper()
		_, err := b.pool.Exec(t.Context(), sql)
		require.NoError(t, err)
	}
	_, err = b.flushAsIs(b.replaying([]uint64{1, 0}, "n 1|110|1=20", "i 3|3")) // refused again
	require.NoError(t, err)
	require.Equal(t, []string{"2 23514", "3 23514"}, b.parks())
	require.Equal(t, 1, b.count(`select replays from headpond.dead_letters where seq = 3`))
	_, err = b.flushAsIs(b.replaying([]uint64{2}, "i 2|100")) // the first write of its batch is refused
	require.NoError(t, err)
	require.Equal(t, []string{"3 23514", "5 23514"}, b.parks())

	exec(`alter table t drop constraint t_v_check; alter table headpond.watermarks add constraint stop check (seq < 6)`)
	again := b.replaying([]uint64{3, 5, 3, 1}, "n 1|110|1=20", "i 2|100", "n 1|130|1=20", "n 1|150|1=20")
	_, err = b.flushAsIs(again) // the watermark cannot be moved
	require.Error(t, err)
	require.Equal(t, []string{"3 23514", "5 23514"}, b.parks())
	require.Equal(t, []string{"(1,90)", "(3,3)"}, b.table())

	exec(`alter table headpond.watermarks drop constraint stop`)
	report, err := b.flushAsIs(again)
	require.NoError(t, err)
	require.Equal(t, []buffer.DeadRow{{Key: "1", ID: table.ID{Epoch: 1, Seq: 8}}, {Key: "1", ID: table.ID{Epoch: 1, Seq: 9}}}, report.Dropped[place])
	require.EqualValues(t, 2, report.Coalesced[place])
	require.Empty(t, b.parks())
	require.Equal(t, []string{"(1,110)", "(2,100)", "(3,3)"}, b.table())

	report, err = b.flushAsIs(b.replaying([]uint64{2, 3}, "i 2|100", "n 1|130|1=20"))
	require.NoError(t, err)
	require.Len(t, report.Dropped[place], 2)
	require.Equal(t, []string{"(1,110)", "(2,100)", "(3,3)"}, b.table())
	missed, err := b.DeadBetween(t.Context(), place, 5, 11) // when the answer to a COMMIT is lost
	require.NoError(t, err)
	require.Equal(t, slices.Concat([]buffer.DeadRow{{Key: "1", ID: table.ID{Epoch: 1, Seq: 8}}, {Key: "1", ID: table.ID{Epoch: 1, Seq: 9}}}, report.Dropped[place]), missed)
	p := b.progress()
	require.EqualValues(t, 11, p.Watermark.Seq)
	require.EqualValues(t, 11, p.Committed+p.Coalesced+p.Dead)
}

// Links of replays are forgotten after a week, but not those that lead to what is
// dead still, and not one before those that it leads to.
func TestReplaysAreForgotten(t *testing.T) {
	t.Parallel()
	b := setupFlush(t, parkDDL, 1)
	_, err := b.apply("id,v", "i 2|100")
	require.NoError(t, err)
	for seq := range uint64(2) {
		_, err = b.flushAsIs(b.replaying([]uint64{seq + 1}, "i 2|100"))
		require.NoError(t, err)
	}
	left := func(want int) {
		t.Helper()
		execute(t, b.pool, `update headpond.replays set at = at - interval '8 days'`)
		require.NoError(t, NewDirect(b.pool).Forget(t.Context()))
		require.Equal(t, want, b.count(`select count(*) from headpond.replays`))
	}
	left(2)
	execute(t, b.pool, `alter table t drop constraint t_v_check`)
	_, err = b.flushAsIs(b.replaying([]uint64{3}, "i 2|100"))
	require.NoError(t, err)
	for n := range 3 {
		left(2 - n)
	}
}
