package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/api/client"
)

// TestDrillPlan: ten kills of flushers at least, every other kind of fault, in
// order, with time before and after them; the same for the same seed.
func TestDrillPlan(t *testing.T) {
	t.Parallel()
	const lasts = 2 * time.Minute
	different := make(map[string]bool)
	for seed := range uint64(50) {
		plan := planDrill(seed, lasts)
		require.Equal(t, plan, planDrill(seed, lasts))
		different[fmt.Sprint(plan)] = true
		times := make(map[drillFaultKind]int)
		for i, f := range plan {
			times[f.kind]++
			require.GreaterOrEqual(t, f.at, seconds(quietShare*lasts.Seconds()))
			require.LessOrEqual(t, f.at+f.lasts, seconds((1-quietShare)*lasts.Seconds()))
			require.True(t, i == 0 || f.at > plan[i-1].at)
		}
		require.GreaterOrEqual(t, times[killFlusher], 10)
		require.Len(t, times, len(drillFaultKinds))
	}
	require.Len(t, different, 50)
	require.NotEmpty(t, planDrill(1, time.Second))
	require.Greater(t, len(planDrill(1, time.Hour)), 20*len(planDrill(1, lasts)))
}

func TestDrillBacklog(t *testing.T) {
	t.Parallel()
	b, start := newDrillBacklog(), time.Now()
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	one := func(partition int, epoch, seq uint64) drillReceipt {
		return drillReceipt{drillPlace{"t", partition}, epoch, seq}
	}
	is := func(now int, rows int64, lag int) {
		t.Helper()
		gotRows, gotLag := b.now(at(now))
		require.Equal(t, rows, gotRows)
		require.Equal(t, time.Duration(lag)*time.Second, gotLag)
	}
	is(1, 0, 0)
	b.accepted(one(0, 1, 5), at(2))
	b.accepted(one(0, 1, 4), at(3)) // answers do not come in the order of the log
	b.accepted(one(1, 1, 1), at(4))
	is(6, 6, 4)
	b.committed(one(0, 1, 4))
	is(6, 2, 4)
	b.committed(one(0, 1, 5))
	is(6, 1, 2)
	b.committed(one(1, 2, 1)) // a new epoch
	is(6, 0, 0)
	b.accepted(one(1, 1, 1), at(5)) // the answer came after the commit
	is(6, 0, 0)
}

// TestDrillRecovered: lag and refusals count for the event that they follow,
// until they end, also beyond the next one.
func TestDrillRecovered(t *testing.T) {
	t.Parallel()
	var samples []drillSample
	for i := range 100 { // ten seconds
		s := drillSample{At: float64(i) / 10, Lag: 0.1, Acked: int64(100 * i)}
		if i >= 20 && i < 35 {
			s.Lag = float64(i-20) / 10
		}
		if i >= 40 {
			s.Failed = int64(min(i-39, 5))
		}
		samples = append(samples, s)
	}
	for i := 85; i < len(samples); i++ {
		samples[i].Acked = samples[84].Acked // the load has ended
	}
	events := []drillEvent{{At: 0.95}, {At: 1.95}, {At: 3.05}, {At: 3.95}, {At: 8}}
	recovered(events, samples, 0.5, 8.4)
	require.Equal(t, drillEvent{At: 0.95, PeakLag: 0.1}, events[0])
	require.InDelta(t, 3.4-1.95, events[1].LagBack, 1e-9)
	require.True(t, events[1].Overtaken)
	require.InDelta(t, 3.4-3.05, events[2].LagBack, 1e-9)
	require.False(t, events[2].Overtaken)
	require.InDelta(t, 4.4-3.95, events[3].WritesBack, 1e-9)
	require.Zero(t, events[3].LagBack)
	require.Zero(t, events[4].WritesBack)
}

// TestDrillOutcomes: a write is refused only when every attempt of it was, and
// known again when a repeat under its Idempotency-Key is answered.
func TestDrillOutcomes(t *testing.T) {
	t.Parallel()
	gone := &client.Error{Code: client.ErrNoAnswer, Applied: client.AppliedUnknown}
	full := &client.Error{Code: client.ErrBacklogFull, Applied: client.AppliedNo, RetryAfter: time.Second}
	absent := &client.Error{Code: client.ErrRowNotFound, Applied: client.AppliedNo}
	for _, c := range []struct {
		answers []error // nil: acknowledged
		want    drillOutcome
		doubted bool
	}{
		{[]error{full}, drillNo, false},
		{[]error{full, nil}, drillOK, false},
		{[]error{gone}, drillUnknown, true},
		{[]error{gone, full}, drillUnknown, true},
		{[]error{gone, absent}, drillNo, true},
		{[]error{gone, full, nil}, drillOK, true},
		{[]error{nil, gone}, drillOK, false},
		{[]error{errors.New("it could not be sent")}, drillNo, false},
	} {
		w := &drillWrite{Keyed: true}
		for _, err := range c.answers {
			if err == nil {
				w.accept("t.3.1.9")
				continue
			}
			w.refuse(err)
		}
		require.Equal(t, c.want, w.Outcome, "%v", c.answers)
		require.Equal(t, c.doubted, w.Doubted, "%v", c.answers)
	}
	again, after := (&drillWrite{Keyed: true}).refuse(full)
	require.True(t, again)
	require.Equal(t, time.Second, after)
	again, _ = (&drillWrite{}).refuse(gone)
	require.False(t, again, "without a key nobody may repeat it")
}

func TestDrillReceipt(t *testing.T) {
	t.Parallel()
	r, ok := readReceipt("audit.orders.3.2.871")
	require.True(t, ok)
	require.Equal(t, drillReceipt{drillPlace{"audit.orders", 3}, 2, 871}, r)
	for _, bad := range []string{"", "orders", "orders.3.2", "orders.3.2.x"} {
		_, ok = readReceipt(bad)
		require.False(t, ok, bad)
	}
}

// TestDrillRequests: every operation is drawn, tokens are never used twice, and
// a key of a request of many is nobody else's.
func TestDrillRequests(t *testing.T) {
	t.Parallel()
	seen, own := make(map[drillToken]bool), make(map[int64]bool)
	kinds := make(map[drillKind]int)
	for id := range int64(4) {
		c := &drillClient{id: id + 1, r: rand.New(rand.NewPCG(1, uint64(id)))}
		for range 2000 {
			kind, writes := drillKindOf(c.r)
			q := c.next(kind)
			require.Len(t, q.writes, writes)
			for _, w := range q.writes {
				require.False(t, seen[w.drillToken])
				seen[w.drillToken] = true
				kinds[w.Kind]++
				require.Equal(t, q.name != "", w.Keyed)
				if q.bulk && w.Kind == drillPut {
					require.False(t, own[w.Key])
					require.GreaterOrEqual(t, w.Key, int64(ownRows))
					own[w.Key] = true
				}
			}
		}
	}
	require.Len(t, kinds, len(drillKinds))
}

// TestDrillPicture: it is XML, has a mark for each fault, and follows the page.
func TestDrillPicture(t *testing.T) {
	t.Parallel()
	r := &drillReport{Seconds: 120, Verdict: &drillVerdict{}}
	for i := range 1200 {
		r.Samples = append(r.Samples, drillSample{At: float64(i) / 10, Lag: float64(i % 50), Backlog: int64(i * i), Acked: int64(200 * i)})
	}
	for i, k := range drillFaultKinds {
		require.NotEmpty(t, drillMarks[k.kind].shape, k.kind)
		r.Events = append(r.Events, drillEvent{Fault: k.kind, Processes: 1, At: float64(10 * (i + 1))})
	}
	for _, r := range []*drillReport{r, {Verdict: &drillVerdict{}}} {
		svg := string(drawDrill(r))
		require.Equal(t, len(r.Events), strings.Count(svg, "<title>"))
		require.Contains(t, svg, "prefers-color-scheme:dark")
		require.NotContains(t, svg, "NaN")
		require.NotContains(t, svg, "Inf")
		d := xml.NewDecoder(strings.NewReader(svg))
		for err := error(nil); !errors.Is(err, io.EOF); _, err = d.Token() {
			require.NoError(t, err)
		}
	}
}
