package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/headpond/headpond/buffer"
)

// happening is something that an operator wants to see beside the charts.
type happening struct {
	At     time.Time `json:"at"`
	Kind   string    `json:"kind"`
	Table  string    `json:"table,omitempty"`
	Detail string    `json:"detail"`

	count int64 // of rows
}

// The kinds of happenings.
const (
	flusherStarted = "flusher_started"
	flusherLost    = "flusher_lost"
	flusherKilled  = "flusher_killed"
	apiStarted     = "api_started"
	apiLost        = "api_lost"
	redisAway      = "redis_away"
	redisBack      = "redis_back"
	redisRestarted = "redis_restarted"
	postgresAway   = "postgres_away"
	postgresBack   = "postgres_back"
	tableHalted    = "halted"
	tableMended    = "mended"
	tablePaused    = "paused"
	tableResumed   = "resumed"
	tableRefusing  = "refusing"
	tableAccepting = "accepting"
	breakerOpened  = "breaker_open"
	breakerClosed  = "breaker_closed"
	lettersGrew    = "dead_letters"
	rowsLost       = "rows_lost"
)

// What the diary keeps. Rows that keep on dying are one entry, as long as they do
// so within sameStory of its beginning.
const (
	mostHappenings = 200
	happeningsKept = historyKept * historyStep
	sameStory      = 10 * time.Second
)

// silentFlusher is how long a flusher may be silent that reports once a second. By
// our own clock: that of its machine may be another one.
const silentFlusher = 3500 * time.Millisecond

// awayAfter: so many readings in a row that took too long. One that is refused
// counts at once.
const awayAfter = 3

// diary notices what changes from one reading to the next. Safe for concurrent use.
type diary struct {
	mu       sync.Mutex // guards what follows
	entries  []happening
	flushers map[string]*reporter
	peers    map[string]bool // processes of the API; nil before they were asked for
	before   *facts          // of the reading before; nil before the first
	slow     [2]int          // readings in a row in which Redis, or Postgres, took too long
}

// reporter is a flusher process.
type reporter struct {
	pid   int
	at    time.Time // of its last report, by its clock
	heard time.Time // by ours
	lost  bool
	dead  bool // it was killed here, and what it said last was said before
}

// facts are what is compared.
type facts struct {
	redis, postgres error
	breaker         string
	why             string // of the breaker
	halted, refused map[string]string
	paused          map[string]buffer.Pause
	books           map[string]Book
	epochs          map[buffer.Place]uint64
}

// write adds an entry. The caller holds mu.
func (d *diary) write(at time.Time, kind, table string, count int64, detail string) {
	if count > 0 {
		for i := len(d.entries) - 1; i >= 0 && at.Sub(d.entries[i].At) < sameStory; i-- {
			if e := &d.entries[i]; e.Kind == kind && e.Table == table {
				e.count += count
				e.Detail = fmt.Sprintf(detail, e.count)
				return
			}
		}
		detail = fmt.Sprintf(detail, count)
	}
	d.entries = append(d.entries, happening{At: at.UTC(), Kind: kind, Table: table, Detail: detail, count: count})
	if n := len(d.entries); n > mostHappenings {
		d.entries = slices.Delete(d.entries, 0, n-mostHappenings)
	}
}

// lately is what happened, newest first.
func (d *diary) lately(now time.Time) []happening {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]happening, 0, len(d.entries))
	for _, e := range slices.Backward(d.entries) {
		if now.Sub(e.At) <= happeningsKept {
			out = append(out, e)
		}
	}
	return out
}

// alive leaves those flushers that reported lately.
func (d *diary) alive(all []buffer.FlusherStats) []buffer.FlusherStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(all), func(f buffer.FlusherStats) bool {
		r := d.flushers[f.ID]
		return r != nil && (r.dead || r.lost && r.at.Equal(f.At))
	})
}

// lost says which flusher was there a moment ago and is not any more; empty when
// there is one, or none was heard of lately.
func (d *diary) lost() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	text := ""
	for _, id := range sortedKeys(d.flushers) {
		if !d.flushers[id].lost {
			return ""
		}
		text = fmt.Sprintf("the flusher process %s is gone, and no other is there yet.", id)
	}
	return text
}

// killed: somebody has ended a flusher process by this API.
func (d *diary) killed(pid int, now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.flushers {
		if r.pid == pid {
			r.lost, r.dead = true, true
		}
	}
	d.write(now, flusherKilled, "", 0, fmt.Sprintf("The flusher process %d was killed from the page.", pid))
}

// notice compares a reading with the one before.
func (s *Server) notice(ctx context.Context, r *survey) {
	now := &facts{
		redis: r.redis, postgres: r.postgres, paused: r.pauses, books: booksOf(r.lines),
		halted: make(map[string]string), refused: make(map[string]string), epochs: make(map[buffer.Place]uint64),
	}
	b := breakerOf(r.flushers)
	now.breaker, now.why = b.State, b.Why
	for _, f := range r.flushers {
		for name, t := range f.Tables {
			if t.Halted {
				now.halted[name] = t.Error
			}
		}
	}
	for name, of := range r.lines {
		if refusing := s.buffer.Refusing(name); refusing.Full != nil {
			now.refused[name] = fullText(refusing.Full)
		}
		for i := range of {
			now.epochs[of[i].place] = of[i].Epoch
		}
	}
	peers := s.peersNow(ctx)
	s.diary.mu.Lock()
	defer s.diary.mu.Unlock()
	s.diary.compare(now, r.at, s.began)
	if r.redis == nil {
		s.diary.hear(r.flushers, r.at)
	}
	s.diary.meet(peers, r.at)
}

// compare writes what is new. The caller holds mu.
func (d *diary) compare(now *facts, at, began time.Time) {
	d.unsure(now)
	if d.before == nil {
		d.before = now
		d.write(began, apiStarted, "", 0, "This process of the API has started.")
		return
	}
	before := d.before
	d.before = now
	d.turned(at, before.redis, now.redis, redisAway, redisBack, "Redis does not answer.", "Redis answers again.")
	d.turned(at, before.postgres, now.postgres, postgresAway, postgresBack, "Postgres does not answer.", "Postgres answers again.")
	if now.redis != nil {
		// What Redis tells is not known: it is compared when it is back.
		redis, postgres := now.redis, now.postgres
		*now = *before
		now.redis, now.postgres = redis, postgres
		return
	}
	switch {
	case now.breaker == buffer.BreakerOpen && before.breaker == buffer.BreakerClosed:
		d.write(at, breakerOpened, "", 0, "Flushes pause, and are tried now and then: "+now.why)
	case now.breaker == buffer.BreakerClosed && before.breaker != buffer.BreakerClosed:
		d.write(at, breakerClosed, "", 0, "Flushes go on.")
	}
	d.came(at, before.halted, now.halted, tableHalted, tableMended, "The table is flushed again.")
	d.came(at, before.refused, now.refused, tableRefusing, tableAccepting, "Writes are accepted again.")
	d.came(at, pauseTexts(before.paused), pauseTexts(now.paused), tablePaused, tableResumed, "The table is resumed.")
	for _, name := range sortedKeys(now.books) {
		was, known := before.books[name]
		if is := now.books[name]; known {
			if n := is.Dead - was.Dead; n > 0 {
				d.write(at, lettersGrew, name, n, "%d rows became dead letters.")
			}
			if n := is.Lost - was.Lost; n > 0 {
				d.write(at, rowsLost, name, n, "%d rows that were acknowledged are lost.")
			}
		}
	}
	d.reopened(at, before.epochs, now.epochs)
}

// unsure takes an answer that only came late for one, until several in a row do.
// The caller holds mu.
func (d *diary) unsure(now *facts) {
	for i, err := range []*error{&now.redis, &now.postgres} {
		switch {
		case *err == nil:
			d.slow[i] = 0
		case errors.Is(*err, errLate):
			if d.slow[i]++; d.slow[i] < awayAfter && d.before != nil {
				*err = [...]error{d.before.redis, d.before.postgres}[i]
			}
		}
	}
}

// turned writes that something went away, or came back.
func (d *diary) turned(at time.Time, before, now error, away, back, gone, there string) {
	switch {
	case before == nil && now != nil:
		d.write(at, away, "", 0, gone)
	case before != nil && now == nil:
		d.write(at, back, "", 0, there)
	}
}

// came writes which tables came into a state, each with why, and which left it.
func (d *diary) came(at time.Time, before, now map[string]string, in, out, left string) {
	for _, name := range sortedKeys(now) {
		if _, was := before[name]; !was {
			d.write(at, in, name, 0, now[name])
		}
	}
	for _, name := range sortedKeys(before) {
		if _, is := now[name]; !is {
			d.write(at, out, name, 0, left)
		}
	}
}

func pauseTexts(all map[string]buffer.Pause) map[string]string {
	out := make(map[string]string, len(all))
	for name := range all {
		out[name] = "The table is paused: writes are accepted, and wait."
	}
	return out
}

// reopened: Redis or Postgres went back, or is another one, and they were compared.
func (d *diary) reopened(at time.Time, before, now map[buffer.Place]uint64) {
	n := 0
	for place, epoch := range now {
		if was := before[place]; was > 0 && epoch > was {
			n++
		}
	}
	if n > 0 {
		d.write(at, redisRestarted, "", 0, fmt.Sprintf("Redis and Postgres were compared anew, and %d partitions opened again: one of the two was restarted or went back.", n))
	}
}

// hear takes the reports of the flushers. The caller holds mu.
func (d *diary) hear(reports []buffer.FlusherStats, at time.Time) {
	first := d.flushers == nil
	if first {
		d.flushers = make(map[string]*reporter)
	}
	there := make(map[string]bool, len(reports))
	for i := range reports {
		f := &reports[i]
		there[f.ID] = true
		r := d.flushers[f.ID]
		switch {
		case r == nil:
			d.flushers[f.ID] = &reporter{pid: f.PID, at: f.At, heard: at}
			if !first {
				d.write(at, flusherStarted, "", 0, fmt.Sprintf("A flusher process has started: %s.", f.ID))
			}
		case r.dead:
		case !r.at.Equal(f.At):
			if r.lost && f.At.After(r.at) {
				d.write(at, flusherStarted, "", 0, fmt.Sprintf("The flusher process %s reports again.", f.ID))
			}
			r.at, r.heard, r.lost = f.At, at, false
		case !r.lost && at.Sub(r.heard) > silentFlusher:
			r.lost = true
			d.write(at, flusherLost, "", 0, fmt.Sprintf("The flusher process %s does not report any more.", f.ID))
		}
	}
	for _, id := range sortedKeys(d.flushers) {
		if !there[id] {
			if !d.flushers[id].lost {
				d.write(at, flusherLost, "", 0, fmt.Sprintf("The flusher process %s has stopped.", id))
			}
			delete(d.flushers, id)
		}
	}
}

// meet takes the processes of the API; nil when nobody was asked. The caller holds mu.
func (d *diary) meet(peers []string, at time.Time) {
	if peers == nil {
		return
	}
	first := d.peers == nil
	now := make(map[string]bool, len(peers))
	for _, id := range peers {
		if now[id] = true; !first && !d.peers[id] {
			d.write(at, apiStarted, "", 0, fmt.Sprintf("A process of the API has started: %s.", id))
		}
	}
	for _, id := range sortedKeys(d.peers) {
		if !now[id] {
			d.write(at, apiLost, "", 0, fmt.Sprintf("A process of the API has ended: %s.", id))
		}
	}
	d.peers = now
}

// peersEvery: that another process of the API is gone hurries nobody.
const peersEvery = 5 * time.Second

// peersNow asks for the processes of the API now and then; nil when it is not time,
// or nobody tells. Called by the goroutine that samples.
func (s *Server) peersNow(ctx context.Context) []string {
	if s.peers == nil || time.Since(s.asked) < peersEvery {
		return nil
	}
	s.asked = time.Now()
	ctx, cancel := context.WithTimeout(ctx, sampleTime)
	defer cancel()
	all, err := s.peers(ctx)
	if err != nil {
		return nil
	}
	return all
}
