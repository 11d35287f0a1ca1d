package postgres

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer/table"
	"github.com/headpond/headpond/flusher"
)

// puts answers every claim with whole rows.
func puts(lines ...string) flusher.Load {
	return func(_ context.Context, claims []flusher.Claim) ([]flusher.Part, error) {
		f := &table.Frame{Columns: []byte("id\tv\tw")}
		for _, l := range lines {
			f.Add(table.OpPut, time.Now().UnixMicro(), []byte(strings.ReplaceAll(l, ",", "\t")+"\n"))
		}
		f.Last = table.ID{Epoch: 1, Seq: claims[0].Watermark.Seq + uint64(len(lines))}
		return []flusher.Part{{Claim: claims[0], Frames: []*table.Frame{f}}}, nil
	}
}

func (b *flushBundle) flushWhereDatabaseWins(load flusher.Load) (*flusher.Report, error) {
	return b.Flush(context.Background(), flusher.Batch{
		Table: "t", Partitions: []int{0}, Load: b.numbered(load), DatabaseWins: true,
		Orphan: func(context.Context, string) error { return nil },
	})
}

// setAside is the dead letters: seq, key and why.
func (b *flushBundle) setAside() string {
	b.t.Helper()
	return strings.Join(b.rows(`select format('%s:%s:%s', seq, key, sqlstate) from headpond.dead_letters order by seq`), " ")
}

func (b *flushBundle) lines() string {
	b.t.Helper()
	return strings.Join(b.rows(`select format('%s,%s,%s', id, v, w) from t order by id`), " ")
}

func setupConflicts(t *testing.T) *flushBundle {
	t.Helper()
	b := setupFlush(t, intTable, 1)
	execute(t, b.pool, "insert into t values (1, 1, 'a'), (2, 2, 'b'), (3, 3, 'c')")
	require.NoError(t, NewWatches(b.pool).Install(t.Context(), b.lookup("t")))
	execute(t, b.pool, "delete from headpond.changes")
	return b
}

// closes checks that seq = committed + coalesced + dead.
func (b *flushBundle) closes() {
	b.t.Helper()
	p := b.progress()
	require.EqualValues(b.t, p.Watermark.Seq, p.Committed+p.Coalesced+p.Dead)
}

// TestDatabaseWins: operations that waited when their row was changed are set
// aside; those that came later, and those of other rows, are written.
func TestDatabaseWins(t *testing.T) {
	t.Parallel()
	b := setupConflicts(t)
	execute(t, b.pool, "insert into headpond.conflicts values ('t', 0, '1', 1, 2, 2), ('t', 0, '2', 1, 3, 0)")
	_, err := b.flushWhereDatabaseWins(puts("1,10,x", "1,11,x", "2,20,x", "1,12,x", "3,30,x"))
	require.NoError(t, err)
	require.Equal(t, "1:1:HP001 2:1:HP001", b.setAside())
	require.Equal(t, "1,12,x 2,20,x 3,30,x", b.lines())
	require.EqualValues(t, 2, b.External().Conflicts("t", "database-wins"))
	require.Equal(t, 2, b.count("select count(*) from headpond.dead_letters where message like 'the row was changed in Postgres by somebody else%'"))
	b.closes()
}

// TestConflictsOfAnEarlierEpoch: after Redis lost rows their numbers are given out
// anew, to operations that nobody has overtaken.
func TestConflictsOfAnEarlierEpoch(t *testing.T) {
	t.Parallel()
	b := setupConflicts(t)
	execute(t, b.pool, "insert into headpond.conflicts values ('t', 0, '1', 0, 9, 9), ('t', 0, '2', 2, 1, 1)")
	_, err := b.flushWhereDatabaseWins(puts("1,10,x", "2,20,x"))
	require.NoError(t, err)
	require.Equal(t, "2:2:HP001", b.setAside())
	require.Equal(t, "1,10,x 2,2,b 3,3,c", b.lines())
}

// TestDatabaseWinsBeforeItIsNoticed: a change that nobody has looked at yet is not
// overwritten either.
func TestDatabaseWinsBeforeItIsNoticed(t *testing.T) {
	t.Parallel()
	b := setupConflicts(t)
	execute(t, b.pool, "update t set v = 50 where id = 1")
	_, err := b.flushWhereDatabaseWins(puts("1,10,x", "2,20,x", "1,11,x"))
	require.NoError(t, err)
	require.Equal(t, "1:1:HP001 3:1:HP001", b.setAside())
	require.Equal(t, "1,50,a 2,20,x 3,3,c", b.lines())
	b.closes()

	execute(t, b.pool, "delete from headpond.changes; truncate t")
	_, err = b.flushWhereDatabaseWins(puts("1,10,x", "2,20,x"))
	require.NoError(t, err)
	require.Empty(t, b.lines())
	b.closes()

	execute(t, b.pool, "update headpond.changes set own = true") // no conflict
	_, err = b.flushWhereDatabaseWins(puts("1,10,x"))
	require.NoError(t, err)
	require.Equal(t, "1,10,x", b.lines())
	b.closes()
}

// TestDatabaseWinsOverAFlushThatWaitedForIt: the flush looks, then waits for the
// row that somebody else has locked, and would write over what that one commits.
func TestDatabaseWinsOverAFlushThatWaitedForIt(t *testing.T) {
	t.Parallel()
	b := setupConflicts(t)
	other, err := b.pool.Begin(t.Context())
	require.NoError(t, err)
	_, err = other.Exec(t.Context(), "update t set v = 50 where id = 1")
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() {
		_, err := b.flushWhereDatabaseWins(puts("1,10,x", "2,20,x"))
		done <- err
	}()
	require.Eventually(t, func() bool {
		return b.count("select count(*) from pg_locks l join pg_stat_activity a using (pid) where not granted and a.datname = current_database()") > 0
	}, 10*time.Second, 5*time.Millisecond, "the flush does not wait for the row")
	require.NoError(t, other.Commit(t.Context()))
	require.NoError(t, <-done)
	require.Equal(t, "1:1:HP001", b.setAside())
	require.Equal(t, "1,50,a 2,20,x 3,3,c", b.lines())
	b.closes()
}

// TestBufferWins: where the buffer wins, what others did is overwritten.
func TestBufferWins(t *testing.T) {
	t.Parallel()
	b := setupConflicts(t)
	execute(t, b.pool, "update t set v = 50 where id = 1; insert into headpond.conflicts values ('t', 0, '2', 1, 3, 3)")
	_, err := b.flush(puts("1,10,x", "2,20,x"), 0)
	require.NoError(t, err)
	require.Empty(t, b.setAside())
	require.Equal(t, "1,10,x 2,20,x 3,3,c", b.lines())
}
