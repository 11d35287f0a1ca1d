package buffer_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

func (b *bundle) outdate(p int, upto uint64, keys ...string) []buffer.Kept {
	b.t.Helper()
	place := b.place(p)
	kept, err := b.Outdate(context.Background(), map[buffer.Place][]string{place: keys}, map[buffer.Place]uint64{place: upto})
	require.NoError(b.t, err)
	return kept
}

// fill puts a clean row.
func (b *bundle) fill(p int, key string) {
	b.t.Helper()
	f, err := b.Get(context.Background(), b.place(p), key, true)
	require.NoError(b.t, err)
	require.NotEmpty(b.t, f.Lease)
	ok, err := b.Fill(context.Background(), b.place(p), key, f.Lease, buffer.Row{Columns: []byte("c"), Line: []byte("x\n")}, buffer.Life{TTL: time.Minute})
	require.NoError(b.t, err)
	require.True(b.t, ok)
}

// TestOutdate: clean rows, leases and what is committed leave; what waits stays.
func TestOutdate(t *testing.T) {
	t.Parallel()
	b := setup(t)
	target := b.target(1)
	b.fill(0, "clean")
	ctx := context.Background()
	f, err := b.Get(ctx, b.place(0), "leased", true)
	require.NoError(t, err)
	missing, err := b.Get(ctx, b.place(0), "missing", true)
	require.NoError(t, err)
	_, err = b.FillAbsent(ctx, b.place(0), "missing", missing.Lease, buffer.Life{TTL: time.Minute})
	require.NoError(t, err)
	b.append(chunk(target, 0, buffer.ExpectNothing, "committed", "told"))
	b.settle(0, table.ID{Epoch: 1, Seq: 1}) // Redis hears of the second later
	b.append(chunk(target, 0, buffer.ExpectNothing, "waits"))

	kept := b.outdate(0, 2, "clean", "leased", "missing", "committed", "told", "waits", "unknown")
	require.Equal(t, []buffer.Kept{{Place: b.place(0), Key: "waits", ID: table.ID{Epoch: 1, Seq: 3}}}, kept)
	for _, key := range []string{"clean", "missing", "committed", "told"} {
		require.Equal(t, buffer.Miss, b.get(0, key).Source, key)
	}
	require.Equal(t, buffer.Dirty, b.get(0, "waits").Source)
	ok, err := b.Fill(ctx, b.place(0), "leased", f.Lease, buffer.Row{Columns: []byte("c"), Line: []byte("x\n")}, buffer.Life{TTL: time.Minute})
	require.NoError(t, err)
	require.False(t, ok, "a row that was loaded before the change is not stored")
	require.Empty(t, b.outdate(0, 3, "waits"), "Postgres has committed it; Redis has not heard")
	require.Equal(t, buffer.Miss, b.get(0, "waits").Source)
}

// TestOutdateOlderGenerations: an entry of an older generation must not come back
// when the newest goes.
func TestOutdateOlderGenerations(t *testing.T) {
	t.Parallel()
	b := setup(t)
	target := b.target(1)
	var keys []string
	for i := range 8192 {
		keys = append(keys, fmt.Sprint("k", i))
	}
	b.append(chunk(target, 0, buffer.ExpectNothing, keys...)) // fills a generation
	b.append(chunk(target, 0, buffer.ExpectNothing, "k1", "k2"))
	require.Empty(t, b.outdate(0, 8194, "k1"))
	require.Equal(t, buffer.Miss, b.get(0, "k1").Source)
	kept := b.outdate(0, 8193, "k2")
	require.Len(t, kept, 1)
	require.Equal(t, uint64(8194), kept[0].ID.Seq)
	require.Equal(t, buffer.Dirty, b.get(0, "k2").Source)
}

// TestOutdateUnderADirectWriter: its marker stays, so that no reader stores a row
// from before its commit, and its row is not put, which may be the older one.
func TestOutdateUnderADirectWriter(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := context.Background()
	target := b.target(1)
	require.NoError(t, b.SetStrategy(ctx, target, "write-through"))
	keys := map[buffer.Place][]string{b.place(0): {"k"}}
	row := map[buffer.Place]map[string]buffer.Row{b.place(0): {"k": {Columns: []byte("c"), Line: []byte("x\n")}}}
	m, err := b.Hold(ctx, target, keys)
	require.NoError(t, err)
	for range 2 {
		require.Empty(t, b.outdate(0, 0, "k"))
		f := b.get(0, "k")
		require.True(t, f.Written)
		require.Empty(t, f.Lease)
	}
	require.NoError(t, m.Fill(ctx, row, buffer.Life{TTL: time.Minute}))
	require.True(t, b.get(0, "k").Written, "the marker ends by itself")

	m, err = b.Hold(ctx, target, keys) // a later writer is right again
	require.NoError(t, err)
	require.NoError(t, m.Fill(ctx, row, buffer.Life{TTL: time.Minute}))
	require.Equal(t, buffer.Clean, b.get(0, "k").Source)
}

// TestOutdateTable: all keys of the table, and no other table's.
func TestOutdateTable(t *testing.T) {
	t.Parallel()
	b := setup(t)
	ctx := context.Background()
	target := b.target(2)
	like := buffer.Place{Table: b.table + ".0", Partition: 1} // its keys begin like those of the table
	require.NoError(t, b.OpenPlaces(ctx, []buffer.Place{like}))
	f, err := b.Get(ctx, like, "k", true)
	require.NoError(t, err)
	_, err = b.Fill(ctx, like, "k", f.Lease, buffer.Row{Columns: []byte("c"), Line: []byte("x\n")}, buffer.Life{TTL: time.Minute})
	require.NoError(t, err)
	for i := range 1500 {
		if i%2 == 0 {
			b.fill(i%4/2, fmt.Sprint("clean", i))
		} else {
			b.append(chunk(target, i%4/2, buffer.ExpectNothing, fmt.Sprint("log", i)))
		}
	}
	upto := map[buffer.Place]uint64{b.place(0): 374, b.place(1): 375}
	kept, err := b.OutdateTable(ctx, b.table, 2, upto)
	require.NoError(t, err)
	require.Equal(t, []buffer.Kept{{Place: b.place(0), Key: "log1497", ID: table.ID{Epoch: 1, Seq: 375}}}, kept)
	for i := range 1500 {
		want := buffer.Miss
		if i == 1497 {
			want = buffer.Dirty
		}
		require.Equal(t, want, b.get(i%4/2, fmt.Sprint([]string{"clean", "log"}[i%2], i)).Source, i)
	}
	f, err = b.Get(ctx, like, "k", false)
	require.NoError(t, err)
	require.Equal(t, buffer.Clean, f.Source)
}
