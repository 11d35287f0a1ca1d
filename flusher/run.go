package flusher

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// Observer hears the durability lag of committed rows. It must be quick and
// safe for concurrent use.
type Observer interface {
	Lag(table string, lag time.Duration, rows int64)
	// Sampled is told beside Lag of rows whose request is sampled, with its span.
	Sampled(table string, lag time.Duration, of table.Span)
	// Flushed is told of each batch: its rows and its outcome, "committed" or a Class.
	Flushed(table, outcome string, rows int, took time.Duration)
}

// Flusher is a pool of workers and the schedule that feeds them.
type Flusher struct {
	cfg     Config
	log     Log
	store   Store
	wakes   <-chan buffer.Place
	observe Observer
	slog    *slog.Logger
	board   *board
	failed  failedFlushes

	mu       sync.Mutex // guards the rest; held for moments only
	schedule *schedule
	unsure   time.Time // since when commits are on one server alone that should be on two; zero: they are not
	nudge    chan struct{}
}

// New makes a flusher. wakes are hints that a partition has something to
// flush; they may be lost.
func New(cfg Config, log Log, store Store, wakes <-chan buffer.Place, observe Observer, logger *slog.Logger) (*Flusher, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	return &Flusher{
		cfg: cfg, log: log, store: store, wakes: wakes, observe: observe, slog: logger,
		board: newBoard(cfg.Workers), schedule: newSchedule(rand.Float64), nudge: make(chan struct{}, 1),
	}, nil
}

// Set adds a table, or changes how it is flushed. Safe while Run is running.
func (f *Flusher) Set(t Table) {
	f.mu.Lock()
	f.schedule.set(t)
	f.mu.Unlock()
	f.poke()
}

// Stats of this process.
func (f *Flusher) Stats() buffer.FlusherStats {
	s := f.board.stats()
	f.mu.Lock()
	defer f.mu.Unlock()
	s.Breaker = f.schedule.breaker.stats(time.Now())
	s.Unreplicated = f.unsure
	for name, st := range f.schedule.tables {
		t := s.Tables[name]
		t.BatchLimit = st.sizer.rows
		if st.trouble.err != nil {
			t.Error, t.Halted = st.trouble.text(), st.trouble.class.Halts()
			t.ErrorSince = st.trouble.since
		}
		s.Tables[name] = t
	}
	return s
}

func (f *Flusher) poke() {
	select {
	case f.nudge <- struct{}{}:
	default:
	}
}

// Run flushes until ctx ends; then it flushes what is left, for at most
// Config.Drain. What it cannot flush stays in the log. A worker that is cut off
// anywhere, even killed, loses nothing and applies nothing twice.
func (f *Flusher) Run(ctx context.Context) error {
	hard, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	jobs := make(chan *job)
	results := make(chan result, f.cfg.Workers)
	var workers sync.WaitGroup
	for i := range f.cfg.Workers {
		w := &worker{id: i, f: f}
		workers.Go(func() {
			for j := range jobs {
				results <- w.do(hard, j)
			}
		})
	}
	workers.Go(func() { f.tidy(hard) })
	// The loop is the only one that hands out jobs, so a partition is never in
	// two of them.
	f.loop(ctx, hard, jobs, results)
	close(jobs)
	cancel()
	workers.Wait()
	return nil
}

func (f *Flusher) loop(ctx, hard context.Context, jobs chan<- *job, results <-chan result) {
	free := f.cfg.Workers
	sweep := time.NewTimer(0)
	defer sweep.Stop()
	due := time.NewTimer(time.Hour)
	defer due.Stop()
	var deadline <-chan time.Time
	stop := ctx.Done()
	for {
		at := f.dispatch(jobs, &free)
		if stop == nil && free == f.cfg.Workers && f.isIdle() {
			return
		}
		if !at.IsZero() {
			due.Reset(max(time.Until(at), 0))
		}
		select {
		case p := <-f.wakes:
			f.noticed(p)
		case <-f.nudge:
			sweep.Reset(0)
		case <-due.C:
		case r := <-results:
			free++
			f.finish(r)
		case <-sweep.C:
			f.sweep(hard)
			sweep.Reset(f.cfg.Sweep + rand.N(f.cfg.Sweep/4)) //nolint:gosec // spreads processes, no secret
		case <-stop:
			stop = nil
			deadline = time.After(f.cfg.Drain)
			f.sweep(hard)
		case <-deadline:
			f.slog.Warn("drain deadline reached; the rest stays in Redis and is flushed after the next start")
			return
		}
	}
}

func (f *Flusher) noticed(p buffer.Place) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.schedule.notice(p.Table, p.Partition, 0, time.Now())
}

// refuse decides whether one more row may become a dead letter.
func (f *Flusher) refuse(of refused) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	st := f.schedule.tables[of.table]
	return st.refused.check(st.PoisonLimit, of, time.Now())
}

func (f *Flusher) isIdle() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.schedule.idle()
}

// dispatch hands out what is due while workers are free, and gives the time at
// which the next job will be due.
func (f *Flusher) dispatch(jobs chan<- *job, free *int) time.Time {
	for *free > 0 {
		f.mu.Lock()
		j, at := f.schedule.next(time.Now())
		f.mu.Unlock()
		if j == nil {
			return at
		}
		*free--
		jobs <- j // a free worker is waiting for it
	}
	return time.Time{}
}

func (f *Flusher) finish(r result) {
	name := r.job.table.Name
	f.mu.Lock()
	st := f.schedule.tables[name]
	before, wasOpen := st.trouble, f.schedule.breaker.open
	st.refused.committed(r.rows, r.dead, time.Now())
	f.schedule.done(r.job, r.remains, r.rows, r.merged, r.took, r.err, time.Now())
	open := f.schedule.breaker.open
	f.replicated(&r)
	f.mu.Unlock()
	switch {
	case open && !wasOpen:
		f.slog.Error("flushes pause; they are tried now and then, and go on by themselves", "error", r.err)
	case wasOpen && !open:
		f.slog.Info("flushes go on")
	}
	ctx := context.Background()
	if r.trace != nil {
		ctx = trace.ContextWithSpan(ctx, r.trace)
	}
	switch class := ClassOf(r.err); {
	case class == PutOff:
		f.slog.Debug("flush put off", "table", name, "why", r.err)
	case r.err != nil:
		f.board.table(name, func(t *tableBoard) { t.failed(class) })
		if !wasOpen && (before.err == nil || before.err.Error() != r.err.Error()) {
			f.slog.ErrorContext(ctx, "flush", "table", name, "partitions", r.job.partitions, "halted", class.Halts(), "class", string(class), "error", r.err)
		}
	case before.err != nil:
		f.slog.Info("flush works again", "table", name, "trouble_lasted", time.Since(before.since).Round(time.Millisecond).String())
	}
}

// replicated notes whether commits reach the standby that they should. The caller
// holds mu.
func (f *Flusher) replicated(r *result) {
	switch {
	case !r.commit || r.unsure == !f.unsure.IsZero():
	case r.unsure:
		f.unsure = time.Now()
		f.slog.Warn("commits are not confirmed by a synchronous standby; the log of their rows is kept until later ones are")
	default:
		f.slog.Info("commits are confirmed by a synchronous standby again", "missing_for", time.Since(f.unsure).Round(time.Millisecond).String())
		f.unsure = time.Time{}
	}
}

// sweep looks at every partition: the backstop behind lost notices.
func (f *Flusher) sweep(ctx context.Context) {
	var places []buffer.Place
	for _, t := range f.tables() {
		places = append(places, t.places()...)
	}
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Sweep)
	defer cancel()
	tails, err := f.log.Tails(ctx, places)
	if err != nil {
		f.slog.Warn("sweep", "error", err)
		return
	}
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, t := range tails {
		if t.Backlog() > 0 {
			f.schedule.notice(t.Place.Table, t.Place.Partition, t.Backlog(), now)
		}
	}
}
