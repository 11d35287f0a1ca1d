package flusher

import (
	"time"

	"github.com/headpond/headpond/buffer"
)

// breaker stops hundreds of tables from trying what cannot work: when Postgres
// (or Redis) is away, it is away for all. Pure: it is told the time and chance.
//
// Closed, everybody tries. After breakAfter failures in a row with a cause that
// all tables share it opens: nobody tries for a pause that grows. Then it is half
// open: one batch at a time is tried, of each table in turn, since a table may
// fail while others would not. The first success closes it.
type breaker struct {
	failures int // in a row
	open     bool
	probe    *job // under way while it is half open
	err      error
	since    time.Time
	until    time.Time
	pause    time.Duration
}

// breakAfter: as many as one after the other, or at once with the default number
// of workers, each with a connection that died.
const breakAfter = 3

// hold says until when no batch may be begun, the zero time for not at all.
// While a probe is under way that is not known: it is asked again afterwards.
func (b *breaker) hold() (until time.Time, probing bool) {
	if !b.open {
		return time.Time{}, false
	}
	return b.until, b.probe != nil
}

// began: a batch was begun. Half open, it is the probe.
func (b *breaker) began(j *job) {
	if b.open {
		b.probe = j
	}
}

// done takes the outcome of a batch. What failed for a reason of its own has
// reached Postgres, as has what succeeded; what was put off has reached nothing.
// Failures of batches that were begun before it opened are no news.
func (b *breaker) done(j *job, err error, now time.Time, chance float64) {
	news := !b.open || b.probe == j
	if b.probe == j {
		b.probe = nil
	}
	switch {
	case err != nil && ClassOf(err) == PutOff:
		return
	case err == nil || !ClassOf(err).shared():
		*b = breaker{}
		return
	case !news:
		return
	}
	b.err = err
	if b.failures++; b.failures == 1 {
		b.since = now
	}
	if b.failures >= breakAfter {
		b.open = true
		b.pause = min(max(2*b.pause, firstPause), mostPause)
		b.until = now.Add(jitter(b.pause, chance))
	}
}

// stats for people.
func (b *breaker) stats(now time.Time) buffer.Breaker {
	if !b.open {
		return buffer.Breaker{State: buffer.BreakerClosed}
	}
	s := buffer.Breaker{State: buffer.BreakerOpen, Since: b.since, Why: b.err.Error(), Next: b.until}
	if b.probe != nil || !now.Before(b.until) {
		s.State = buffer.BreakerHalfOpen
	}
	return s
}

// jitter spreads processes that failed together: from half of a pause to all of it.
func jitter(pause time.Duration, chance float64) time.Duration {
	return pause/2 + time.Duration(chance*float64(pause/2))
}
