package api

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/buffer"
)

// past makes moments a second apart, the last of them a second ago: ages in
// milliseconds, and how many rows were done with.
func past(target time.Duration, ages []int, done ...int64) (out []earlier) {
	for i, age := range ages {
		b := Book{Oldest: time.Duration(age) * time.Millisecond}
		if b.Pending = 10; age == 0 {
			b.Pending = 0
		}
		b.Committed = done[min(i, len(done)-1)]
		out = append(out, earlier{b, time.Duration(len(ages)-i) * time.Second})
	}
	return out
}

// TestVerdictRules: there is no threshold to set. What was near zero at any moment
// of the window is being dealt with.
func TestVerdictRules(t *testing.T) {
	t.Parallel()
	const target = 500 * time.Millisecond
	for name, c := range map[string]struct {
		age, pending int
		done         int64
		dead, lost   bool
		before       []earlier
		want         string
	}{
		"nothing waits":                     {0, 0, 5, false, false, nil, "ok"},
		"young":                             {900, 10, 5, false, false, nil, "ok"},
		"nothing waits, no flusher":         {0, 0, 5, true, false, nil, "ok"},
		"it was gone a moment ago":          {4000, 10, 5, false, false, past(target, []int{3000, 3500, 0, 2000, 3000}, 5), "ok"},
		"it was near a moment ago":          {4000, 10, 5, false, false, past(target, []int{3000, 900, 1500, 2000, 3000}, 5), "ok"},
		"grows, and is worked on":           {6000, 10, 9, false, false, past(target, []int{1500, 2000, 3000, 4000, 5000}, 5, 6, 7, 8, 9), "behind"},
		"shrinks, but is old":               {3000, 10, 9, false, false, past(target, []int{9000, 8000, 7000, 6000, 5000}, 5, 6), "behind"},
		"stands":                            {6000, 10, 5, false, false, past(target, []int{1500, 2000, 3000, 4000, 5000}, 5), "stalled"},
		"no flusher":                        {2000, 10, 5, true, false, past(target, []int{100, 0, 0, 500, 1000}, 5), "stalled"},
		"the flusher died a moment ago":     {30, 10, 5, true, true, past(target, []int{0, 0, 0, 0, 10}, 5), "stalled"},
		"it died, and nothing waits":        {0, 0, 5, true, true, nil, "ok"},
		"began a moment ago, nobody looked": {4000, 10, 5, false, false, nil, "ok"},
		"began long ago, nobody looked":     {3_600_000, 10, 5, false, false, nil, "stalled"},
		"began long ago, looked at once":    {3_600_000, 10, 5, false, false, past(target, []int{3_599_000}, 5), "behind"},
		"what was long before the window":   {9000, 10, 5, false, false, past(target, []int{0, 1500, 2000, 3000, 4000, 5000, 6000, 7000, 8000}, 5), "stalled"},
		"moved long before the window":      {9000, 10, 5, false, false, past(target, []int{1000, 1500, 2000, 3000, 4000, 5000, 6000, 7000, 8000}, 1, 5), "stalled"},
	} {
		now := &backlogNow{
			Book:   Book{ledgerLine: ledgerLine{Pending: int64(c.pending), Committed: c.done}, Oldest: time.Duration(c.age) * time.Millisecond},
			target: target, dead: c.dead, lost: c.lost,
		}
		require.Equal(t, c.want, judge(now, c.before), name)
	}
}

// TestVerdictOfAll is the worst of the tables', and what stands in the way of all
// comes first.
func TestVerdictOfAll(t *testing.T) {
	t.Parallel()
	st := &status{Redis: health{OK: true}, Postgres: health{OK: true}, Tables: map[string]tableStatus{
		"a": {Verdict: "behind", Why: "a"}, "b": {Verdict: "stalled", Why: "b"}, "c": {Verdict: "ok", Why: "c"},
	}}
	says := func(want string) {
		t.Helper()
		word, why := verdict(st)
		require.Equal(t, want, word+" "+why)
	}
	says("stalled b")
	st.Tables["p"] = tableStatus{Verdict: "blocked", Why: "p", Paused: nil}
	says("blocked p")
	st.Tables["r"] = tableStatus{Verdict: "blocked", Why: "r", Refusing: &refusingStatus{}}
	says("blocked r")
	st.Tables["s"] = tableStatus{Verdict: "blocked", Why: "s", Halted: true}
	says("blocked s")
	st.Postgres = health{Detail: "away"}
	says("blocked away")
	st.Redis = health{Detail: "gone"}
	says("blocked gone")
}

// TestVerdictOfAPause: what a pause means depends on how the table is written by now.
func TestVerdictOfAPause(t *testing.T) {
	t.Parallel()
	st := &status{Redis: health{OK: true}, Postgres: health{OK: true}}
	says := func(strategy string, rows int64) string {
		one := tableStatus{Paused: &buffer.Pause{Since: time.Unix(0, 0)}, Strategy: strategy, Backlog: backlog{Rows: rows}}
		word, why := new(Server).judgeTable("t", &one, st, nil)
		return word + ". " + why
	}
	require.Equal(t, "blocked. Table t is paused since 00:00:00: its writes are accepted, and 22 rows wait.", says("write-behind", 22))
	require.Equal(t, "blocked. Table t is paused since 00:00:00: its writes are accepted, and 0 rows wait.", says("", 0))
	require.Equal(t, "blocked. Table t is paused since 00:00:00, and write-through by now: 22 rows wait, and until they are flushed writes to their partitions are refused.", says("write-through", 22))
	require.Equal(t, "ok. Nothing waits.", says("cache-aside", 0))
}
