package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// drillWorld is a history and the tables that it should have made.
type drillWorld struct {
	drillHistory

	found drillFound
	seqs  uint64
}

func newDrillWorld() *drillWorld {
	return &drillWorld{found: drillFound{
		Log: make(map[drillToken]int64), Dead: make(map[drillToken]int64),
		Counters: make(map[int64]drillSum), Rows: make(map[int64]drillRow),
	}}
}

// write makes a write; applied says whether it is in the tables.
func (d *drillWorld) write(w drillWrite, applied bool) drillToken {
	w.drillToken = drillToken{Client: 1 + int64(len(d.writes)%3), N: int64(len(d.writes))}
	if applied {
		d.seqs++
		d.apply(&w)
		d.found.Ledger.Accepted++
	}
	if w.Outcome == drillOK && w.Seq == 0 {
		w.Epoch, w.Seq = 1, d.seqs
	}
	d.add(&w)
	return w.drillToken
}

func (d *drillWorld) apply(w *drillWrite) {
	switch {
	case w.Poison:
		d.found.Dead[w.drillToken]++
		d.found.Ledger.Dead++
		return
	case w.Kind == drillInsert:
		d.found.Log[w.drillToken]++
	case w.Kind == drillIncrement:
		s := d.found.Counters[w.Key]
		d.found.Counters[w.Key] = drillSum{s.Count + 1, s.Sum + w.Amount}
	default:
		if r := d.found.Rows[w.Key].after(w); r == (drillRow{}) {
			delete(d.found.Rows, w.Key)
		} else {
			d.found.Rows[w.Key] = r
		}
	}
	d.found.Ledger.Committed++
}

// fill makes n random writes, some of unknown outcome.
func (d *drillWorld) fill(r *rand.Rand, n int, doubts bool) {
	for range n {
		w := drillWrite{Kind: drillKinds[r.IntN(len(drillKinds))], Key: int64(r.IntN(5)), Amount: 1 + r.Int64N(1_000_000), Outcome: drillOK}
		if _, there := d.found.Rows[w.Key]; !there && (w.Kind == drillPatch || w.Kind == drillDelete) {
			w.Kind = drillPut
		}
		w.Poison = w.Kind == drillInsert && r.IntN(20) == 0
		applied := true
		switch {
		case r.IntN(10) == 0:
			w.Outcome, applied = drillNo, false
		case doubts && r.IntN(10) == 0:
			w.Outcome, applied = drillUnknown, r.IntN(2) == 0
		}
		d.write(w, applied)
	}
}

func TestDrillCheckPasses(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		d := newDrillWorld()
		d.fill(rand.New(rand.NewPCG(seed, 0)), 200, seed%2 == 1)
		v := d.check(&d.found)
		require.True(t, v.passed(), "seed %d: %+v", seed, v)
	}
}

// TestDrillCheckSeesDamage: each thing that may go wrong with a table is seen,
// and called by its name.
func TestDrillCheckSeesDamage(t *testing.T) {
	t.Parallel()
	any := func(m map[drillToken]int64) drillToken {
		for t := range maps.Keys(m) {
			return t
		}
		panic("there is none")
	}
	for name, c := range map[string]struct {
		damage func(*drillWorld)
		want   drillVerdict
	}{
		"a row is gone":             {func(d *drillWorld) { delete(d.found.Log, any(d.found.Log)) }, drillVerdict{Lost: 1}},
		"a row is there twice":      {func(d *drillWorld) { d.found.Log[any(d.found.Log)]++ }, drillVerdict{Duplicated: 1}},
		"a dead letter is gone":     {func(d *drillWorld) { delete(d.found.Dead, any(d.found.Dead)); d.found.Ledger.Dead-- }, drillVerdict{Lost: 1}},
		"a dead letter is doubled":  {func(d *drillWorld) { d.found.Dead[any(d.found.Dead)]++; d.found.Ledger.Dead++ }, drillVerdict{Duplicated: 1}},
		"nobody sent a row":         {func(d *drillWorld) { d.found.Log[drillToken{9, 9}] = 1 }, drillVerdict{Phantoms: 1}},
		"a refused row is there":    {func(d *drillWorld) { d.found.Log[d.write(drillWrite{Kind: drillInsert, Outcome: drillNo}, false)] = 1 }, drillVerdict{Phantoms: 1}},
		"a counter lags":            {func(d *drillWorld) { d.found.Counters[1] = drillSum{d.found.Counters[1].Count - 2, 0} }, drillVerdict{Lost: 2}},
		"a counter runs ahead":      {func(d *drillWorld) { d.found.Counters[1] = drillSum{d.found.Counters[1].Count + 3, 0} }, drillVerdict{Duplicated: 3}},
		"one lost and one twice":    {func(d *drillWorld) { d.found.Counters[1] = drillSum{d.found.Counters[1].Count, 17} }, drillVerdict{Lost: 1, Duplicated: 1}},
		"nobody counted":            {func(d *drillWorld) { d.found.Counters[77] = drillSum{1, 1} }, drillVerdict{Phantoms: 1}},
		"a row is as it was before": {func(d *drillWorld) { d.undo(t, drillPut) }, drillVerdict{Lost: 1}},
		"a patch is gone":           {func(d *drillWorld) { d.undo(t, drillPatch) }, drillVerdict{Lost: 1}},
		"a deleted row is back":     {func(d *drillWorld) { d.undo(t, drillDelete) }, drillVerdict{Lost: 1}},
		"a row of a refused put": {func(d *drillWorld) {
			d.found.Rows[50] = drillRow{Put: d.write(drillWrite{Kind: drillPut, Key: 50, Outcome: drillNo}, false)}
		}, drillVerdict{Phantoms: 1, Lost: 1}},
		"a row of a bulk is missing": {func(d *drillWorld) { d.bulk(); delete(d.found.Rows, 60) }, drillVerdict{Lost: 1}},
	} {
		d := newDrillWorld()
		d.fill(rand.New(rand.NewPCG(1, 0)), 300, false)
		require.True(t, d.check(&d.found).passed(), name)
		c.damage(d)
		v := d.check(&d.found)
		require.False(t, v.passed(), name)
		require.NotEmpty(t, v.Problems, name)
		v.Problems = nil
		require.Equal(t, c.want, *v, name)
	}
}

// undo makes the table forget the last write to a key of its own.
func (d *drillWorld) undo(t *testing.T, kind drillKind) {
	const key = 40
	first := d.write(drillWrite{Kind: drillPut, Key: key, Outcome: drillOK}, true)
	before := d.found.Rows[key]
	d.write(drillWrite{Kind: kind, Key: key, Outcome: drillOK}, true)
	require.NotEqual(t, before, d.found.Rows[key])
	require.Equal(t, first, before.Put)
	require.True(t, d.check(&d.found).passed())
	d.found.Rows[key] = before
}

// bulk makes a put whose receipt is that of a whole request.
func (d *drillWorld) bulk() {
	d.write(drillWrite{Kind: drillPut, Key: 60, Outcome: drillOK}, true)
	last := d.writes[len(d.writes)-1]
	last.Epoch, last.Seq = 0, 0
}

// TestDrillCheckUnknown: what nobody knows may be there, once and at any place
// of the order, and nothing else may.
func TestDrillCheckUnknown(t *testing.T) {
	t.Parallel()
	d := newDrillWorld()
	put := d.write(drillWrite{Kind: drillPut, Key: 1, Outcome: drillOK}, true)
	patch := d.write(drillWrite{Kind: drillPatch, Key: 1, Outcome: drillOK}, true)
	doubt := d.write(drillWrite{Kind: drillPut, Key: 1, Outcome: drillUnknown}, false)
	twin := d.write(drillWrite{Kind: drillPut, Key: 2, Outcome: drillOK}, true)
	for row, legal := range map[drillRow]bool{
		{put, patch}: true, {doubt, drillToken{}}: true, {doubt, patch}: true,
		{put, drillToken{}}: false, {}: false, {twin, patch}: false, {put, doubt}: false,
	} {
		d.found.Rows[1] = row
		require.Equal(t, legal, d.check(&d.found).passed(), "%v", row)
	}
	d.found.Rows[1] = drillRow{put, patch}

	d.found.Ledger.Accepted, d.found.Ledger.Committed = 4, 4 // the unknown one among them
	require.True(t, d.check(&d.found).passed())
	lone := d.write(drillWrite{Kind: drillInsert, Outcome: drillUnknown}, false)
	for times, legal := range []bool{true, true, false} {
		d.found.Log[lone] = int64(times)
		require.Equal(t, legal, d.check(&d.found).passed(), "%d times", times)
	}
}

func TestDrillCheckLedger(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(*ledgerView){
		"does not close":   func(l *ledgerView) { l.Committed-- },
		"still pending":    func(l *ledgerView) { l.Committed--; l.Pending++ },
		"reports":          func(l *ledgerView) { l.Committed--; l.Lost++ },
		"were accepted":    func(l *ledgerView) { l.Committed++; l.Accepted++ },
		"dead letters":     func(l *ledgerView) { l.Dead--; l.Coalesced++ },
		"the clients know": func(l *ledgerView) { l.Committed--; l.Accepted-- },
	} {
		d := newDrillWorld()
		d.fill(rand.New(rand.NewPCG(3, 0)), 100, false)
		require.True(t, d.check(&d.found).passed())
		damage(&d.found.Ledger)
		v := d.check(&d.found)
		require.Len(t, v.Problems, 1, name)
		require.Contains(t, v.Problems[0], name)
	}
}

func TestDrillSomeSum(t *testing.T) {
	t.Parallel()
	require.True(t, someSum([]int64{3, 5, 9}, 2, 12))
	require.False(t, someSum([]int64{3, 5, 9}, 2, 9))
	require.True(t, someSum(nil, 0, 0))
	require.False(t, someSum(nil, 0, 1))
}

func TestDrillProblemsAreFew(t *testing.T) {
	t.Parallel()
	d := newDrillWorld()
	for range 100 {
		d.write(drillWrite{Kind: drillInsert, Outcome: drillOK}, true)
	}
	clear(d.found.Log)
	v := d.check(&d.found)
	require.EqualValues(t, 100, v.Lost)
	require.Len(t, v.Problems, mostProblems+1)
	require.Contains(t, v.Problems[mostProblems], fmt.Sprint("and ", 100-mostProblems, " more"))
}

// TestDrillTraffic: a run in which little happened proves little.
func TestDrillTraffic(t *testing.T) {
	t.Parallel()
	var h drillHistory
	for i := range 30 {
		w := &drillWrite{Kind: drillKinds[i%len(drillKinds)], Outcome: drillOK}
		w.Began, w.Ended = 2*ticks(i), 2*ticks(i)+1
		h.add(w)
	}
	got := h.traffic(ticks(20), ticks(40))
	require.Equal(t, drillTraffic{Before: 10, Between: 11, After: 9}, got)
	require.Empty(t, got.missing(h.counts(), 9))
	require.Len(t, got.missing(h.counts(), 10), 1)
	require.Len(t, drillTraffic{}.missing(drillCounts{}, 1), 3+len(drillKinds))
}

func TestDrillHistoryIsSaved(t *testing.T) {
	t.Parallel()
	var h drillHistory
	var out strings.Builder
	h.add(&drillWrite{drillToken: drillToken{3, 4}, Kind: drillPut, Key: 5, Outcome: drillOK, Partition: 1, Epoch: 2, Seq: 7})
	require.NoError(t, h.save(&out))
	require.JSONEq(t, `{"client":3,"n":4,"kind":"put","key":5,"outcome":"ok","partition":1,"epoch":2,"seq":7,"began":0,"ended":0}`, out.String())
}

func ticks(n int) time.Duration { return time.Duration(n) * time.Millisecond }
