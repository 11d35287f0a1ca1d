package main

import (
	"fmt"
	"slices"
)

// drillFound is what lies in Postgres when all is committed.
type drillFound struct {
	Log      map[drillToken]int64 // how often each row is in the table without a key
	Dead     map[drillToken]int64 // the same of the dead letters
	Counters map[int64]drillSum
	Rows     map[int64]drillRow
	Ledger   ledgerView
}

// drillSum is a counter: each increment adds one to the count and an amount of
// its own to the sum, so that a lost one and a doubled one do not cancel out.
type drillSum struct{ Count, Sum int64 }

// drillRow is a row with a key: the put that wrote it, and the patch that was
// last, if there was one since.
type drillRow struct{ Put, Patch drillToken }

// drillVerdict is what the comparison of a history with the tables came to.
type drillVerdict struct {
	Lost       int64    `json:"lost"`       // acknowledged and not there
	Duplicated int64    `json:"duplicated"` // times that a write is there beyond the first
	Phantoms   int64    `json:"phantoms"`   // there, and refused or never sent
	Applied    int64    `json:"unknown_applied"`
	NotApplied int64    `json:"unknown_not_applied"`
	Problems   []string `json:"problems"`

	unsaid int64 // problems beyond mostProblems
}

const mostProblems = 20

func (v *drillVerdict) problem(format string, args ...any) {
	if len(v.Problems) >= mostProblems {
		v.unsaid++
		return
	}
	v.Problems = append(v.Problems, fmt.Sprintf(format, args...))
}

// passed reports whether the history, the tables and the ledger agree.
func (v *drillVerdict) passed() bool {
	return v.Lost == 0 && v.Duplicated == 0 && v.Phantoms == 0 && len(v.Problems) == 0
}

// check compares the history with what was found. Nobody writes any more.
func (h *drillHistory) check(f *drillFound) *drillVerdict {
	v := &drillVerdict{Problems: []string{}}
	v.checkLog(h.of(drillInsert), f)
	v.checkCounters(h.of(drillIncrement), f)
	v.checkRows(h.of(drillPut, drillPatch, drillDelete), f)
	v.checkLedger(h.counts(), f)
	if v.unsaid > 0 {
		v.Problems = append(v.Problems, fmt.Sprintf("and %d more", v.unsaid))
	}
	return v
}

func (h *drillHistory) of(kinds ...drillKind) (out []*drillWrite) {
	for _, w := range h.writes {
		if slices.Contains(kinds, w.Kind) {
			out = append(out, w)
		}
	}
	return out
}

// checkLog: what was acknowledged is there once, bad rows as dead letters; what
// was refused is not; what is unknown may be, once.
func (v *drillVerdict) checkLog(writes []*drillWrite, f *drillFound) {
	sent := make(map[drillToken]bool, len(writes))
	for _, w := range writes {
		sent[w.drillToken] = true
		there, elsewhere := f.Log[w.drillToken], f.Dead[w.drillToken]
		where := "the table"
		if w.Poison {
			there, elsewhere, where = elsewhere, there, "the dead letters"
		}
		if elsewhere > 0 {
			v.problem("insert %v (poison: %t) is not only in %s", w, w.Poison, where)
		}
		switch {
		case w.Outcome == drillOK && there == 0 && elsewhere == 0:
			v.Lost++
			v.problem("lost: insert %v was acknowledged (%s) and is not in %s", w, w.receipt(), where)
		case w.Outcome == drillNo && there > 0:
			v.Phantoms++
			v.problem("phantom: insert %v was refused (%s) and is in %s", w, w.Answer, where)
		case w.Outcome == drillUnknown:
			v.doubtful(there > 0)
		}
		if there > 1 {
			v.Duplicated += there - 1
			v.problem("duplicated: insert %v (%s, %s) is %d times in %s", w, w.Outcome, w.receipt(), there, where)
		}
	}
	for _, found := range []map[drillToken]int64{f.Log, f.Dead} {
		for t := range found {
			if !sent[t] {
				v.Phantoms++
				v.problem("phantom: insert %v was never sent and is there", t)
			}
		}
	}
}

func (v *drillVerdict) doubtful(applied bool) {
	if applied {
		v.Applied++
	} else {
		v.NotApplied++
	}
}

func (w *drillWrite) receipt() string {
	if w.Seq == 0 {
		return "one of many"
	}
	return fmt.Sprintf("partition %d, %d-%d", w.Partition, w.Epoch, w.Seq)
}

// checkCounters: the count is that of the acknowledged increments, and of some
// of those that stayed unknown; the sum is that of their amounts.
func (v *drillVerdict) checkCounters(writes []*drillWrite, f *drillFound) {
	sure, perhaps := make(map[int64]drillSum), make(map[int64][]int64)
	for _, w := range writes {
		s := sure[w.Key]
		switch w.Outcome {
		case drillOK:
			s.Count, s.Sum = s.Count+1, s.Sum+w.Amount
		case drillUnknown:
			perhaps[w.Key] = append(perhaps[w.Key], w.Amount)
		}
		sure[w.Key] = s
	}
	for key, s := range sure {
		v.checkCounter(key, s, f.Counters[key], perhaps[key])
	}
	for key := range f.Counters {
		if _, ok := sure[key]; !ok {
			v.Phantoms++
			v.problem("phantom: nobody counted on counter %d, and it is there", key)
		}
	}
}

func (v *drillVerdict) checkCounter(key int64, sure, found drillSum, perhaps []int64) {
	most := sure.Count + int64(len(perhaps))
	switch extra := found.Count - sure.Count; {
	case extra < 0:
		v.Lost -= extra
		v.problem("lost: counter %d counts %d after %d acknowledged increments", key, found.Count, sure.Count)
	case found.Count > most:
		v.Duplicated += found.Count - most
		v.problem("duplicated: counter %d counts %d after at most %d increments", key, found.Count, most)
	case !someSum(perhaps, extra, found.Sum-sure.Sum):
		v.Lost++
		v.Duplicated++
		v.problem("lost and duplicated: counter %d counts %d as it should, but its sum is %d and not %d", key, found.Count, found.Sum, sure.Sum)
	default:
		v.Applied += extra
		v.NotApplied += int64(len(perhaps)) - extra
	}
}

// mostSubsets bounds how many choices of unknown increments are tried.
const mostSubsets = 1 << 16

// someSum reports whether n of the amounts add up to sum. Among too many it is
// not looked for: then it says yes.
func someSum(amounts []int64, n, sum int64) bool {
	tried := 0
	var choose func(from int, n, sum int64) bool
	choose = func(from int, n, sum int64) bool {
		if tried++; tried > mostSubsets {
			return true
		}
		if n == 0 {
			return sum == 0
		}
		for i := from; i+int(n) <= len(amounts); i++ {
			if choose(i+1, n-1, sum-amounts[i]) {
				return true
			}
		}
		return false
	}
	return choose(0, n, sum)
}

// checkLedger: it closes, and what it says was accepted is what the clients
// know of.
func (v *drillVerdict) checkLedger(c drillCounts, f *drillFound) {
	l := f.Ledger
	if l.Accepted != l.Committed+l.Pending+l.Dead+l.Coalesced+l.Lost {
		v.problem("the ledger does not close: %s", l)
	}
	if l.Pending != 0 {
		v.problem("%d rows are still pending", l.Pending)
	}
	if l.Lost != 0 {
		v.problem("Headpond itself reports %d rows as lost", l.Lost)
	}
	if l.Accepted < c.Acknowledged || l.Accepted > c.Acknowledged+c.Unknown {
		v.problem("the ledger says that %d writes were accepted; the clients know of %d, and of %d unknown ones", l.Accepted, c.Acknowledged, c.Unknown)
	}
	var dead int64
	for _, times := range f.Dead {
		dead += times
	}
	if l.Dead != dead {
		v.problem("the ledger says that there are %d dead letters, and there are %d", l.Dead, dead)
	}
}

func (l ledgerView) String() string {
	return fmt.Sprintf("accepted %d = committed %d + pending %d + dead-lettered %d + coalesced %d + lost %d",
		l.Accepted, l.Committed, l.Pending, l.Dead, l.Coalesced, l.Lost)
}
