package api

import (
	"fmt"
	"time"

	"github.com/headpond/headpond/buffer"
)

// breaker is the worst of the flusher processes'. Open, nothing is flushed for a
// moment, since what failed would fail for every table.
type breaker struct {
	State   string     `json:"state"` // closed, open, half-open
	Process string     `json:"process,omitempty"`
	Since   *time.Time `json:"since,omitempty"`
	Why     string     `json:"why,omitempty"`
	Next    *time.Time `json:"next_try_at,omitempty"`

	all  bool   // processes have theirs open: nothing is flushed at all
	fate string // of writes meanwhile
}

func breakerOf(flushers []buffer.FlusherStats) breaker {
	worse := []string{buffer.BreakerClosed, buffer.BreakerHalfOpen, buffer.BreakerOpen}
	worst := breaker{State: worse[0], all: len(flushers) > 0}
	for level, state := range worse {
		for i := range flushers {
			f := &flushers[i]
			if f.Breaker.State == state && level > 0 {
				worst.State, worst.Process, worst.Why = state, f.ID, f.Breaker.Why
				worst.Since, worst.Next = &f.Breaker.Since, &f.Breaker.Next
			}
		}
	}
	for i := range flushers {
		if s := flushers[i].Breaker.State; s != buffer.BreakerOpen && s != buffer.BreakerHalfOpen {
			worst.all = false
		}
	}
	return worst
}

// sentence says why nothing is flushed.
func (b *breaker) sentence(now time.Time) string {
	next := max(b.Next.Sub(now), 0).Round(100 * time.Millisecond)
	return fmt.Sprintf("Nothing has been flushed since %s, and it is tried again in %s: %s. %s.",
		b.Since.UTC().Format(time.TimeOnly), next, b.Why, b.fate)
}

// replicationWarnings: a synchronous standby is configured and does not confirm.
func replicationWarnings(flushers []buffer.FlusherStats) []string {
	var since time.Time
	for i := range flushers {
		if u := flushers[i].Unreplicated; !u.IsZero() && (since.IsZero() || u.Before(since)) {
			since = u
		}
	}
	if since.IsZero() {
		return nil
	}
	return []string{"Since " + since.UTC().Format(time.TimeOnly) + " no synchronous standby of Postgres has confirmed a commit: " +
		"a failover now may take back what is committed. The log of these rows is kept in Redis until later commits are confirmed."}
}
