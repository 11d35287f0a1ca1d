package api

import (
	"fmt"
	"time"

	"github.com/headpond/headpond/buffer"
)

// The words of a verdict, the better ones first.
const (
	verdictOK      = "ok"
	verdictBehind  = "behind"
	verdictStalled = "stalled"
	verdictBlocked = "blocked"
)

var badness = map[string]int{verdictOK: 0, verdictBehind: 1, verdictStalled: 2, verdictBlocked: 3}

// verdictWindow is what a verdict looks back on. There is no threshold to set: a
// backlog that was gone, or close to it, at any moment of the window is being dealt
// with, whatever its size; one that never was is not, and then it counts whether
// anything was committed meanwhile. After Burrow's rules for consumers of Kafka,
// https://github.com/linkedin/Burrow/wiki/Consumer-Lag-Evaluation-Rules
const verdictWindow = 5 * time.Second

// leastTarget: below it the linger and the sweep of the flushers are what is seen.
const leastTarget = 250 * time.Millisecond

// backlogNow is what the rules look at.
type backlogNow struct {
	Book

	target time.Duration
	dead   bool // no flusher is there
	lost   bool // there was one a moment ago
}

// near is the age up to which a backlog is nothing to speak of.
func (b *backlogNow) near() time.Duration { return 2 * max(b.target, leastTarget) }

// judge applies the rules: before are the moments of the window, oldest first, each
// with how long ago it was.
func judge(now *backlogNow, before []earlier) string {
	near := now.near()
	switch {
	case now.Pending == 0:
		return verdictOK
	case now.lost:
		return verdictStalled
	case now.Oldest <= near:
		return verdictOK
	case now.dead:
		return verdictStalled
	}
	moved, covered := false, false
	for _, e := range before {
		if e.ago > verdictWindow+historyStep {
			continue
		}
		if e.Pending == 0 || e.Oldest <= near {
			return verdictOK
		}
		moved = moved || e.done() < now.done()
		covered = covered || e.ago >= verdictWindow
	}
	// The oldest row waited all the time that it is old: so the backlog was never
	// gone in the window, though nobody looked.
	if !covered && now.Oldest <= near+verdictWindow {
		return verdictOK
	}
	if moved || len(before) > 0 && before[0].ago < verdictWindow/2 {
		return verdictBehind
	}
	return verdictStalled
}

// earlier is a moment of the window.
type earlier struct {
	Book

	ago time.Duration
}

// verdict says in one word and one sentence how things are: the worst of the tables,
// unless something stands in the way of all of them.
func verdict(st *status) (word, why string) {
	if why := st.obstacle(); why != "" {
		return verdictBlocked, why
	}
	for _, first := range []func(*tableStatus) bool{
		func(t *tableStatus) bool { return t.Halted },
		func(t *tableStatus) bool { return t.Refusing != nil },
		func(*tableStatus) bool { return true },
	} {
		word, why = verdictOK, "Everything accepted is committed within its target lag."
		for _, name := range sortedKeys(st.Tables) {
			if t := st.Tables[name]; badness[t.Verdict] > badness[word] && first(&t) {
				word, why = t.Verdict, t.Why
			}
		}
		if word != verdictOK {
			break
		}
	}
	return word, why
}

// obstacle is what keeps all tables from being flushed; empty for nothing.
func (st *status) obstacle() string {
	switch {
	case !st.Redis.OK:
		return st.Redis.Detail
	case !st.Postgres.OK:
		return st.Postgres.Detail
	case st.unread != "":
		return st.unread
	case st.Breaker.all:
		return st.Breaker.sentence(st.At)
	}
	return ""
}

// judgeTable is the verdict of one table.
func (s *Server) judgeTable(name string, t *tableStatus, st *status, before []earlier) (word, why string) {
	switch why := st.obstacle(); {
	case why != "" && t.Backlog.Rows > 0:
		return verdictBlocked, why
	case t.Halted:
		return verdictBlocked, fmt.Sprintf("Table %s is halted: %s", name, t.Error)
	case t.Refusing != nil:
		return verdictBlocked, "Writes are refused. " + t.Refusing.Detail
	case t.Paused != nil && (t.Strategy == "" || t.Strategy == buffer.WriteBehind):
		return verdictBlocked, fmt.Sprintf("Table %s is paused since %s: its writes are accepted, and %d rows wait.",
			name, t.Paused.Since.UTC().Format(time.TimeOnly), t.Backlog.Rows)
	case t.Paused != nil && t.Backlog.Rows > 0: // direct writes wait for those rows, and without any there is nothing to pause
		return verdictBlocked, fmt.Sprintf("Table %s is paused since %s, and %s by now: %d rows wait, and until they are flushed writes to their partitions are refused.",
			name, t.Paused.Since.UTC().Format(time.TimeOnly), t.Strategy, t.Backlog.Rows)
	}
	now := &backlogNow{
		Book:   Book{ledgerLine: t.Ledger, Oldest: time.Duration(t.OldestMS) * time.Millisecond},
		target: time.Duration(t.TargetLagMS) * time.Millisecond, dead: len(st.Flushers) == 0, lost: len(st.Flushers) == 0 && st.lost != "",
	}
	age := now.Oldest.Round(100 * time.Millisecond)
	switch word = judge(now, before); word {
	case verdictStalled:
		hint := "no flusher reports; start one with headpond serve --role flusher."
		if now.lost {
			hint = st.lost
		} else if !now.dead {
			hint = "flushers run"
			if t.Error != "" {
				hint += "; " + t.Error
			}
			hint += "."
		}
		return word, fmt.Sprintf("Table %s has %d rows waiting, the oldest for %s, and nothing is being committed: %s", name, t.Backlog.Rows, age, hint)
	case verdictBehind:
		return word, fmt.Sprintf("Table %s is %s behind with %d rows waiting; %.0f rows/s come in and %.0f go out.", name, age, t.Backlog.Rows, t.Rates.In, t.Rates.Out)
	}
	if t.Backlog.Rows == 0 {
		return verdictOK, "Nothing waits."
	}
	return verdictOK, fmt.Sprintf("%d rows wait, the oldest for %s.", t.Backlog.Rows, age)
}

// window gives what the moments say of a table.
func window(moments []*moment, name string, now time.Time) (out []earlier) {
	for _, m := range moments {
		if b, known := m.tables[name]; known {
			out = append(out, earlier{b, now.Sub(m.at)})
		}
	}
	return out
}
