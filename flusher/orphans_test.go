package flusher

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

func familyOf(t *testing.T) (*world, *Flusher) {
	t.Helper()
	w := newWorld()
	f, err := New(Config{}, w, w, nil, w, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	for _, name := range []string{"parent", "t"} {
		f.Set(Table{Name: name, Partitions: 1, Linger: time.Millisecond, TargetLag: time.Second})
	}
	return w, f
}

// Rows that were accepted after the mark wait for a mark of their own.
func TestOrphansWaitForTheirParents(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	w, f := familyOf(t)
	parent := buffer.Place{Table: "parent", Partition: 0}
	w.logs[parent] = []*table.Frame{frameUpTo(3, 3)}
	w.add(0, 5)
	j := &job{table: f.tables()["t"], partitions: []int{0}}

	require.NoError(t, f.orphan(ctx, j, "somebody else's table"))
	require.True(t, isWaiting(f.orphan(ctx, j, "parent")))
	w.add(0, 5) // accepted after the mark
	w.logs[parent] = append(w.logs[parent], frameUpTo(6, 3))

	j.mark = f.schedule.tables["t"].mark
	require.NotNil(t, j.mark)
	require.True(t, isWaiting(f.ripe(ctx, j)))
	w.settled[parent] = 2
	require.True(t, isWaiting(f.ripe(ctx, j)))
	w.settled[parent] = 3
	require.NoError(t, f.ripe(ctx, j), "the parent is committed up to the mark, though it has more")
	require.Len(t, j.mark.cut(place(0), w.logs[place(0)]), 1, "no row after the mark is judged by it")
	require.NoError(t, f.orphan(ctx, j, "parent"), "what has no parent now never had one")

	f.schedule.done(j, map[int]left{0: {backlog: 5}}, 5, 0, time.Millisecond, nil, time.Now())
	require.Nil(t, f.schedule.tables["t"].mark)
}

func TestOrphansOfASettledParentAreBad(t *testing.T) {
	t.Parallel()
	w, f := familyOf(t)
	w.add(0, 1)
	require.NoError(t, f.orphan(context.Background(), &job{table: f.tables()["t"]}, "parent"))
	require.Nil(t, f.schedule.tables["t"].mark)
}

func TestATableThatRefersToItselfIsNotTriedForEver(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	w, f := familyOf(t)
	w.add(0, 1)
	j := &job{table: f.tables()["t"]}
	require.True(t, isWaiting(f.orphan(ctx, j, "t")))
	j.mark = f.schedule.tables["t"].mark
	for range mostTries {
		require.NoError(t, f.ripe(ctx, j))
		require.True(t, isWaiting(f.orphan(ctx, j, "t")))
	}
	require.NoError(t, f.orphan(ctx, j, "t"))
}
