package api

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
)

var noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// kinds of the entries, oldest first, without the first of all.
func (d *diary) kinds() (out []string) {
	for _, e := range d.entries[1:] {
		out = append(out, e.Kind)
	}
	return out
}

// TestDiaryCompares: each change is written once, at the moment when it is seen.
func TestDiaryCompares(t *testing.T) {
	t.Parallel()
	d := &diary{}
	away := errors.New("refused")
	quiet := func() *facts {
		return &facts{breaker: buffer.BreakerClosed, books: map[string]Book{"t": {}}, epochs: map[buffer.Place]uint64{{Table: "t"}: 1}}
	}
	second := 0
	see := func(change func(*facts), want ...string) {
		t.Helper()
		now := quiet()
		if change != nil {
			change(now)
		}
		second++
		d.entries = d.entries[:min(len(d.entries), 1)]
		d.compare(now, noon.Add(time.Duration(second)*time.Second), noon)
		require.Equal(t, want, d.kinds())
	}
	see(nil)
	require.Equal(t, apiStarted, d.entries[0].Kind)
	see(nil)
	see(func(f *facts) { f.postgres = away }, postgresAway)
	see(func(f *facts) { f.postgres = away })
	see(nil, postgresBack)
	see(func(f *facts) { f.halted = map[string]string{"t": "100%s"} }, tableHalted)
	require.Equal(t, "100%s", d.entries[1].Detail)
	see(func(f *facts) { f.redis, f.books, f.epochs = away, nil, nil }, redisAway)
	see(func(f *facts) { f.redis, f.books, f.epochs = away, nil, nil })
	see(func(f *facts) {
		f.halted, f.epochs = map[string]string{"t": "100%s"}, map[buffer.Place]uint64{{Table: "t"}: 2}
	}, redisBack, redisRestarted)
	see(func(f *facts) { f.epochs[buffer.Place{Table: "t"}] = 2 }, tableMended)
	see(func(f *facts) { f.paused = map[string]buffer.Pause{"t": {}} }, tablePaused)
	see(nil, tableResumed)
	see(func(f *facts) { f.refused = map[string]string{"t": "full"} }, tableRefusing)
	see(nil, tableAccepting)
	see(func(f *facts) { f.breaker = buffer.BreakerOpen }, breakerOpened)
	see(func(f *facts) { f.breaker = buffer.BreakerHalfOpen })
	see(nil, breakerClosed)
	see(func(f *facts) { f.books["t"] = Book{ledgerLine: ledgerLine{Lost: 3}} }, rowsLost)
	require.Equal(t, "3 rows that were acknowledged are lost.", d.entries[1].Detail)
}

// TestDiarySlowAnswers: one that came late is no outage, three in a row are.
func TestDiarySlowAnswers(t *testing.T) {
	t.Parallel()
	d := &diary{}
	see := func(err error) {
		d.compare(&facts{postgres: err, breaker: buffer.BreakerClosed}, noon, noon)
	}
	see(nil)
	see(errLate)
	see(nil)
	see(errLate)
	see(errLate)
	require.Empty(t, d.kinds())
	see(errLate)
	require.Equal(t, []string{postgresAway}, d.kinds())
}

// TestDiaryTellsOneStory: rows that keep on dying are one entry for a while, and
// there are never more than so many entries.
func TestDiaryTellsOneStory(t *testing.T) {
	t.Parallel()
	d := &diary{}
	for i := range 15 {
		d.write(noon.Add(time.Duration(i)*time.Second), lettersGrew, "t", 2, "%d rows became dead letters.")
	}
	all := d.lately(noon)
	require.Len(t, all, 2)
	require.Equal(t, "20 rows became dead letters.", all[1].Detail)
	require.Equal(t, "10 rows became dead letters.", all[0].Detail)
	for range 2 * mostHappenings {
		d.write(noon.Add(time.Minute), tableHalted, "t", 0, "x")
	}
	require.Len(t, d.lately(noon.Add(time.Minute)), mostHappenings)
	require.Empty(t, d.lately(noon.Add(time.Hour)))
}

// TestDiaryHearsFlushers: one that is silent is lost, by our own clock, whatever
// that of its machine says.
func TestDiaryHearsFlushers(t *testing.T) {
	t.Parallel()
	d := &diary{entries: make([]happening, 1)}
	report := func(id string, at int) buffer.FlusherStats {
		return buffer.FlusherStats{ID: id, PID: len(id), At: noon.Add(-time.Hour + time.Duration(at)*time.Second)}
	}
	hear := func(second float64, reports ...buffer.FlusherStats) []string {
		d.entries = d.entries[:1]
		d.hear(reports, noon.Add(time.Duration(second*float64(time.Second))))
		return d.kinds()
	}
	require.Empty(t, hear(0, report("a", 0)), "it was there before")
	require.Equal(t, []string{flusherStarted}, hear(1, report("a", 1), report("bb", 1)))
	require.Empty(t, hear(4, report("a", 4), report("bb", 1)))
	require.Equal(t, []string{flusherLost}, hear(5, report("a", 5), report("bb", 1)))
	require.Empty(t, hear(6, report("a", 6), report("bb", 1)))
	require.Len(t, d.alive([]buffer.FlusherStats{report("a", 6), report("bb", 1)}), 1)
	require.Equal(t, []string{flusherStarted}, hear(7, report("a", 7), report("bb", 7)))
	require.Equal(t, []string{flusherLost}, hear(8, report("a", 8)), "it has stopped")

	d.entries = d.entries[:1]
	d.killed(1, noon.Add(9*time.Second))
	require.Equal(t, []string{flusherKilled}, d.kinds())
	require.Empty(t, d.alive([]buffer.FlusherStats{report("a", 8)}))
	require.Contains(t, d.lost(), "the flusher process a is gone")
	require.Empty(t, hear(10, report("a", 9)), "what it said before it died was not heard yet")
	require.Empty(t, d.alive([]buffer.FlusherStats{report("a", 9)}))
	require.Empty(t, hear(20, report("a", 9)), "that it is lost is known")
	require.Equal(t, []string{flusherStarted}, hear(21, report("ccc", 21)), "and in its place")
	require.Empty(t, d.lost())
}
