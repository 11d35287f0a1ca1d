package api

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/headpond/headpond/buffer"
	"github.com/headpond/headpond/buffer/table"
)

// books keeps what was true a little while ago, for rates and for the verdict.
type books struct {
	mu      sync.Mutex
	samples []sample // oldest first, at most keepSamples

	progress map[buffer.Place]buffer.Progress // what Postgres said last; never changed in place
	back     map[buffer.Place]uint64          // watermarks that were behind what Redis had heard of, in the sample before
	gaps     map[buffer.Place]string          // of these, those that cannot be mended
	memory   buffer.Memory                    // of Redis
	heads    map[buffer.Place]head
}

// sample is both sides of the ledger at one moment.
type sample struct {
	at     time.Time
	tables map[string]Book
	kept   int64 // bytes that this process ever kept until they were committed
}

// Book is one table in the books.
type Book struct {
	ledgerLine

	Bytes  uint64        // of the backlog
	Oldest time.Duration // age of the oldest row that is not committed
}

// ledgerLine is one table's rows: accepted = committed + pending +
// dead-lettered + coalesced + lost.
type ledgerLine struct {
	Accepted  int64 `json:"accepted"`
	Committed int64 `json:"committed"`
	Pending   int64 `json:"pending"`
	Dead      int64 `json:"dead_lettered"`
	Coalesced int64 `json:"coalesced"`
	Lost      int64 `json:"lost"`
}

func (l *ledgerLine) add(o ledgerLine) {
	l.Accepted += o.Accepted
	l.Committed += o.Committed
	l.Pending += o.Pending
	l.Dead += o.Dead
	l.Coalesced += o.Coalesced
	l.Lost += o.Lost
}

// done is what left the backlog.
func (l *ledgerLine) done() int64 { return l.Committed + l.Dead + l.Coalesced }

// A sample every two seconds costs about 2 ms with 800 partitions; ten of them
// make the window of the rates.
const (
	sampleEvery = 2 * time.Second
	keepSamples = 10
)

// partitionLine is one partition, as both sides see it.
type partitionLine struct {
	Partition   int        `json:"partition"`
	Epoch       uint64     `json:"epoch"`
	Seq         uint64     `json:"seq"`
	Watermark   uint64     `json:"watermark"`
	BacklogRows int64      `json:"backlog_rows"`
	BacklogSize uint64     `json:"backlog_bytes"`
	OldestMS    int64      `json:"oldest_unflushed_ms"`
	Halted      bool       `json:"halted"` // with its table, or it waits for rows that Redis has lost
	Rates       rateStatus `json:"rates"`
	place       buffer.Place
	settled     uint64 // how far Redis has heard of commits
	ledger      ledgerLine
	progress    buffer.Progress
}

// readLedger reads both sides, each within patience: first Postgres, then Redis, so
// that what is committed is never more than what is accepted. Without Postgres it
// is what Postgres said last, and what Redis has heard of since.
func (s *Server) readLedger(ctx context.Context, patience time.Duration) (out map[string][]partitionLine, redis, postgres error) {
	tables := s.tables.Load()
	if tables == nil {
		tables = &catalog{}
	}
	asking, cancel := context.WithTimeout(ctx, patience)
	byPlace, dbErr := s.progress(asking)
	dbErr = orLate(asking, dbErr)
	cancel()
	asking, cancel = context.WithTimeout(ctx, patience)
	defer cancel()
	all := everyPlace(*tables, byPlace)
	if len(all) == 0 {
		return map[string][]partitionLine{}, orLate(asking, s.buffer.Ping(asking)), dbErr
	}
	tails, err := s.buffer.Tails(asking, all)
	if err != nil {
		return nil, orLate(asking, err), dbErr
	}
	out = make(map[string][]partitionLine, len(*tables))
	for _, t := range tails {
		p := byPlace[t.Place]
		if further := int64(t.Settled) - int64(p.Watermark.Seq); dbErr != nil && further > 0 { //nolint:gosec // below 2^53
			p.Committed += further
			p.Watermark = table.ID{Epoch: t.Last.Epoch, Seq: t.Settled}
		}
		line := partitionLine{
			Partition: t.Place.Partition, Epoch: t.Last.Epoch, Seq: t.Last.Seq, Watermark: p.Watermark.Seq,
			BacklogRows: max(int64(t.Last.Seq)-int64(p.Watermark.Seq), 0), Halted: t.Closed, //nolint:gosec // below 2^53
			place: t.Place, progress: p, settled: t.Settled,
		}
		if line.BacklogRows > 0 {
			line.BacklogSize = t.Bytes
		}
		line.ledger = ledgerLine{
			Committed: p.Committed, Dead: p.Dead, Coalesced: p.Coalesced, Lost: p.Lost, Pending: line.BacklogRows,
		}
		line.ledger.Accepted = p.Committed + p.Dead + p.Coalesced + p.Lost + line.BacklogRows
		out[t.Place.Table] = append(out[t.Place.Table], line)
	}
	return out, nil, dbErr
}

// errLate is that no answer came in time: it may only be slow.
var errLate = errors.New("no answer came in time")

// orLate is err, or errLate when it is that the time was over.
func orLate(asking context.Context, err error) error {
	if due, _ := asking.Deadline(); err != nil && time.Until(due) < 10*time.Millisecond {
		return errLate
	}
	return err
}

// everyPlace is the partitions of all tables that are served or ever were: rows
// of a table that is gone or cannot be written wait all the same.
func everyPlace(tables catalog, progress map[buffer.Place]buffer.Progress) (all []buffer.Place) {
	known := make(map[buffer.Place]bool)
	for _, name := range tables.names() {
		if sv := tables[name]; sv.Table.Unusable == "" {
			for _, p := range places(sv) {
				known[p] = true
				all = append(all, p)
			}
		}
	}
	served := len(all)
	for p := range progress {
		if !known[p] {
			all = append(all, p)
		}
	}
	slices.SortFunc(all[served:], func(a, b buffer.Place) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(a.Partition, b.Partition))
	})
	return all
}

// progress of all partitions, as Postgres says it, or as it said it last.
func (s *Server) progress(ctx context.Context) (map[buffer.Place]buffer.Progress, error) {
	all, err := s.ledger.Progress(ctx)
	s.books.mu.Lock()
	defer s.books.mu.Unlock()
	if err != nil {
		return s.books.progress, err
	}
	byPlace := make(map[buffer.Place]buffer.Progress, len(all))
	for _, p := range all {
		byPlace[p.Place] = p
	}
	s.books.progress = byPlace
	return byPlace, nil
}

func totals(lines []partitionLine) (l ledgerLine) {
	for i := range lines {
		l.add(lines[i].ledger)
	}
	return l
}

// Sample keeps the books until ctx ends. One goroutine runs it. It reads every
// second, for the history, and every other one while nothing happens and nobody
// listens: with 800 partitions a reading costs 5 ms. The books, which are for longer
// spans, take every other reading.
func (s *Server) Sample(ctx context.Context) error {
	tick := time.NewTicker(historyStep)
	defer tick.Stop()
	var last told
	for n := 0; ; n++ {
		books := n%int(sampleEvery/historyStep) == 0
		if last.quiet && !books && s.streams.listeners() == 0 {
			s.publish(&last.total, last.tables, nil)
		} else {
			r := s.survey(ctx, sampleTime)
			if ctx.Err() != nil {
				return nil
			}
			if r.redis == nil && books {
				s.note(r)
				s.lookBack(ctx, r.lines)
				s.measure(ctx, r.lines)
			}
			last = s.tell(ctx, r)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// sampleTime is how long Redis or Postgres may take to say how things stand. One
// that takes longer counts as away for the moment.
const sampleTime = time.Second

func (s *Server) note(r *survey) {
	_, kept := s.buffer.Keeping()
	sm := sample{at: r.at, tables: booksOf(r.lines), kept: kept}
	s.books.mu.Lock()
	defer s.books.mu.Unlock()
	s.books.samples = append(s.books.samples, sm)
	if n := len(s.books.samples); n > keepSamples {
		s.books.samples = s.books.samples[n-keepSamples:]
	}
}

func booksOf(lines map[string][]partitionLine) map[string]Book {
	out := make(map[string]Book, len(lines))
	for name, l := range lines {
		out[name] = bookOf(l)
	}
	return out
}

func bookOf(lines []partitionLine) Book {
	b := Book{ledgerLine: totals(lines), Oldest: time.Duration(oldest(lines)) * time.Millisecond}
	for i := range lines {
		b.Bytes += lines[i].BacklogSize
	}
	return b
}

// Books gives every table as it was at the last sample.
func (s *Server) Books() map[string]Book {
	s.books.mu.Lock()
	defer s.books.mu.Unlock()
	if n := len(s.books.samples); n > 0 {
		return s.books.samples[n-1].tables
	}
	return nil
}

// rates of a table in rows per second, over the window up to now.
func (b *books) rates(name string, now ledgerLine, at time.Time) (in, out float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, sm := range b.samples {
		before, ok := sm.tables[name]
		seconds := at.Sub(sm.at).Seconds()
		if !ok || seconds < 0.5 {
			continue
		}
		done := now.done() - before.done()
		return max(float64(now.Accepted-before.Accepted)/seconds, 0), max(float64(done)/seconds, 0)
	}
	return 0, 0
}

// keeps is how many bytes a second this process keeps until they are committed.
func (b *books) keeps(ever int64, at time.Time) float64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, sm := range b.samples {
		if seconds := at.Sub(sm.at).Seconds(); seconds >= 0.5 {
			return float64(ever-sm.kept) / seconds
		}
	}
	return 0
}

// saved is how many rows of a table were coalesced, in the window up to now.
func (b *books) saved(name string, now ledgerLine) int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, sm := range b.samples {
		if before, ok := sm.tables[name]; ok {
			return max(now.Coalesced-before.Coalesced, 0)
		}
	}
	return 0
}
