package postgres

import (
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer/table"
)

func TestReserve(t *testing.T) {
	t.Parallel()
	pool := open(t, `create sequence up; create sequence step increment 10 start 5; create sequence down increment -1;`)
	e := NewEdge(pool)
	ids, err := e.Reserve(t.Context(), "public.up", 3)
	require.NoError(t, err)
	require.Equal(t, []int64{1, 2, 3}, ids)
	ids, err = e.Reserve(t.Context(), "public.step", 2)
	require.NoError(t, err)
	require.Equal(t, []int64{5, 15}, ids)
	ids, err = e.Reserve(t.Context(), "public.down", 2)
	require.NoError(t, err)
	require.Equal(t, []int64{-1, -2}, ids)

	_, err = e.Reserve(t.Context(), "public.none", 1)
	require.ErrorIs(t, err, ErrCatalogStale)
	_, err = e.Reserve(t.Context(), "public.up", 0)
	require.Error(t, err)
}

// A nextval past the end fails and loses what it took on the way.
func TestReserveTakesTheLastIdsOfASequence(t *testing.T) {
	t.Parallel()
	pool := open(t, `create sequence small as smallint start 32760; create sequence wide start 9223372036854775800; create sequence low increment -5 minvalue -12;
		create sequence round maxvalue 3 cycle; create sequence cached maxvalue 25 cache 10`)
	e := NewEdge(pool)
	for name, want := range map[string]int{"small": 8, "wide": 8, "low": 3, "cached": 25} {
		ids, err := e.Reserve(t.Context(), "public."+name, 1000)
		require.NoError(t, err, name)
		require.Len(t, ids, want, name)
		_, err = e.Reserve(t.Context(), "public."+name, 1)
		require.ErrorContains(t, err, "reached m", name)
		require.NotErrorIs(t, err, ErrUnavailable)
	}
	ids, err := e.Reserve(t.Context(), "public.round", 5)
	require.NoError(t, err)
	require.Equal(t, []int64{1, 2, 3, 1, 2}, ids)
}

func TestReserveUnderConcurrency(t *testing.T) {
	t.Parallel()
	pool := open(t, `create sequence s`)
	e := NewEdge(pool)
	var mu sync.Mutex
	var all []int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				ids, err := e.Reserve(t.Context(), "public.s", 37)
				mu.Lock()
				if err == nil {
					all = append(all, ids...)
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	requireDistinct(t, all, 8*10*37)
}

func requireDistinct(t *testing.T, ids []int64, n int) {
	t.Helper()
	require.Len(t, ids, n)
	slices.Sort(ids)
	require.Len(t, slices.Compact(ids), n)
}

func TestSequenceCap(t *testing.T) {
	t.Parallel()
	for kind, want := range map[table.Kind]int{table.KindInt2: 100, table.KindInt4: 10_000, table.KindInt8: 500_000} {
		require.Equal(t, want, SequenceCap(&table.Type{Kind: kind}))
	}
}
