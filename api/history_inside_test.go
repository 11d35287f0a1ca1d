package api

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestHistoryClock: its times never go back, whatever the wall's clock does, and
// follow it forward.
func TestHistoryClock(t *testing.T) {
	t.Parallel()
	var c clock
	wall := time.UnixMilli(1_000_000_000_000)
	require.EqualValues(t, 1_000_000_000_000, c.tick(wall, time.Hour))
	require.EqualValues(t, 1_000_000_001_000, c.tick(wall.Add(time.Second), time.Second))
	require.EqualValues(t, 1_000_000_002_000, c.tick(wall.Add(-time.Hour), time.Second), "set back: at its own pace")
	require.EqualValues(t, 1_000_000_003_000, c.tick(wall.Add(-time.Hour+time.Second), time.Second))
	require.EqualValues(t, 1_000_000_003_001, c.tick(wall, 0), "two at once")
	require.EqualValues(t, 1_000_003_600_000, c.tick(wall.Add(time.Hour), time.Second), "set forward")
}

type historyText struct {
	Step   int64 `json:"step_ms"`
	T      []int64
	Total  map[string][]*float64
	Tables map[string]map[string][]*float64
}

func readHistory(t *testing.T, text []byte) (out historyText) {
	t.Helper()
	require.NoError(t, json.Unmarshal(text, &out), "%s", text)
	for _, of := range append([]map[string][]*float64{out.Total}, values(out.Tables)...) {
		require.Len(t, of, int(columns))
		for name, values := range of {
			require.Len(t, values, len(out.T), name)
		}
	}
	return out
}

func values[V any](m map[string]V) (out []V) {
	for _, v := range m {
		out = append(out, v)
	}
	return out
}

// TestHistoryKeeps the last quarter of an hour, and what is asked for of it.
func TestHistoryKeeps(t *testing.T) {
	t.Parallel()
	h := &history{}
	empty := readHistory(t, h.since(math.MinInt64))
	require.Empty(t, empty.T)
	const hostile = "a\"<script>\u2028\\\n"
	add := func(n int) {
		p := unknownPoint()
		p[colOldest], p[colBacklogRows], p[colHitRate] = float64(n), 10_000_000, 0.125
		tables := map[string]point{hostile: p}
		if n < 10 {
			tables["gone"] = p
		}
		if n >= 900 {
			tables["new"] = p
		}
		h.add(int64(n)*1000, &p, tables)
	}
	for n := 1; n <= 5; n++ {
		add(n)
	}
	got := readHistory(t, h.since(math.MinInt64))
	require.Equal(t, []int64{1000, 2000, 3000, 4000, 5000}, got.T)
	require.InDelta(t, 3, *got.Total["oldest_ms"][2], 0)
	require.InDelta(t, 10_000_000, *got.Tables[hostile]["backlog_rows"][4], 0)
	require.InDelta(t, 0.125, *got.Tables[hostile]["hit_rate"][0], 0)
	require.Nil(t, got.Total["lag_p50_ms"][0], "unknown")
	require.Same(t, &h.since(math.MinInt64)[0], &h.since(0)[0], "it is written out once")
	require.Equal(t, []int64{4000, 5000}, readHistory(t, h.since(3000)).T)
	require.Empty(t, readHistory(t, h.since(9000)).T)

	for n := 6; n <= 1000; n++ {
		add(n)
	}
	got = readHistory(t, h.since(math.MinInt64))
	require.Len(t, got.T, historyKept)
	require.EqualValues(t, 101_000, got.T[0])
	require.EqualValues(t, 1_000_000, got.T[historyKept-1])
	require.InDelta(t, 101, *got.Total["oldest_ms"][0], 0)
	require.NotContains(t, got.Tables, "gone", "it has not been there for as long")
	require.Nil(t, got.Tables["new"]["oldest_ms"][0])
	require.InDelta(t, 1000, *got.Tables["new"]["oldest_ms"][historyKept-1], 0)
}

// TestHistoryIsBounded: tables beyond the most are in the total alone.
func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	h := &history{}
	tables := make(map[string]point)
	for i := range mostHistory + 50 {
		tables[string(rune('a'+i%26))+string(rune('a'+i/26))] = unknownPoint()
	}
	p := unknownPoint()
	h.add(1000, &p, tables)
	require.Len(t, h.tables, mostHistory)
}

// TestPoints: rates between two moments, what several flushers say, and the sum.
func TestPoints(t *testing.T) {
	t.Parallel()
	p := unknownPoint()
	was := Book{ledgerLine: ledgerLine{Accepted: 100, Committed: 90, Coalesced: 5}}
	now := Book{ledgerLine: ledgerLine{Accepted: 200, Committed: 190, Coalesced: 15, Pending: 100}}
	p.stand(&now)
	p.move(&now, &was, 2)
	require.InDelta(t, 50, p[colIn], 0)
	require.InDelta(t, 55, p[colOut], 0)
	require.InDelta(t, 5, p[colSaved], 0)
	require.InDelta(t, 20, p[colTimeToEmpty], 0)
	p.read(rowReads{hits: 9, all: 10, nanos: 10e6}, rowReads{}, 2)
	require.InDelta(t, 0.9, p[colHitRate], 0)
	require.InDelta(t, 1, p[colEffective], 0)
	require.InDelta(t, 5, p[colReads], 0)

	q := unknownPoint()
	q.move(&was, &now, 1)
	require.Zero(t, q[colIn], "Redis went back: no rate is below zero")
	stuck := unknownPoint()
	stuck[colBacklogRows], stuck[colOldest] = 7, 30
	p[colOldest] = 20
	sum := sumOf(map[string]point{"p": p, "stuck": stuck, "none": unknownPoint()})
	require.InDelta(t, 107, sum[colBacklogRows], 0)
	require.InDelta(t, 30, sum[colOldest], 0)
	require.InDelta(t, 50, sum[colIn], 0)
	require.True(t, math.IsNaN(sum[colTimeToEmpty]), "one table does not empty")
}
