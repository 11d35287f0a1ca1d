package postgres

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"
)

// Sequence hands out ids of one sequence from memory, so that a write needs no
// round trip for its id and goes on while Postgres is away. Safe for
// concurrent use. Close it.
type Sequence struct {
	reserve func(ctx context.Context, n int) ([]int64, error)
	most    int
	now     func() time.Time
	ctx     context.Context // of refills: they serve many callers, and end with Close
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu       sync.Mutex // guards what follows; never held while Postgres is asked
	ids      []int64
	wanted   int // ids that callers wait for
	rate     meter
	refill   *refill // the one that is under way, or nil
	failure  *refill // the last one that failed
	failedAt time.Time
}

// refill is one query for ids. done is closed when it ended; err is set before.
type refill struct {
	done chan struct{}
	err  error
}

const (
	outageSeconds = 60     // how long the reserve lasts at the recent rate
	reserveMin    = 1_000  // ids to hold however slow the table is
	reserveChunk  = 50_000 // ids in one query
	refillTimeout = 10 * time.Second
	refillPause   = 100 * time.Millisecond // after a refill that failed: callers get its error meanwhile
)

// NewSequence makes an allocator that holds at most most ids (SequenceCap). It
// asks for nothing before the first Next.
func (e *Edge) NewSequence(name string, most int) *Sequence {
	return newSequence(func(ctx context.Context, n int) ([]int64, error) { return e.Reserve(ctx, name, n) }, most, time.Now)
}

func newSequence(reserve func(context.Context, int) ([]int64, error), most int, now func() time.Time) *Sequence {
	ctx, cancel := context.WithCancel(context.Background())
	return &Sequence{reserve: reserve, most: max(most, 1), now: now, ctx: ctx, cancel: cancel}
}

// Close ends a refill that is under way and waits for it. Ids still held are
// lost, which leaves a gap, as with any sequence that caches.
func (s *Sequence) Close() {
	s.mu.Lock()
	s.cancel() // under the lock: nothing starts after it
	s.mu.Unlock()
	s.running.Wait()
}

// Next gives n ids. It waits for Postgres only when memory does not hold them;
// then an error that is ErrUnavailable says that Postgres could not be asked.
// An id is given once among all processes.
func (s *Sequence) Next(ctx context.Context, n int) ([]int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rate.add(s.now(), n)
	for len(s.ids) < n {
		if err := s.await(ctx, n); err != nil && len(s.ids) < n {
			return nil, err
		}
	}
	out := s.ids[:n:n]
	s.ids = s.ids[n:]
	if low, _ := s.levels(); len(s.ids) < low {
		s.start()
	}
	return out, nil
}

// await lets go of the lock until the present refill ends.
func (s *Sequence) await(ctx context.Context, n int) error {
	s.wanted += n
	r := s.start()
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.wanted -= n
	}()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return storeError("next ids", ctx.Err())
	}
}

// start gives the refill that is under way, and makes one when there is none:
// never two at once. Call it with the lock held.
func (s *Sequence) start() *refill {
	switch {
	case s.refill != nil:
		return s.refill
	case s.ctx.Err() != nil:
		return failed(fmt.Errorf("next ids: %w: the allocator is closed", ErrUnavailable))
	case s.failure != nil && s.now().Sub(s.failedAt) < refillPause:
		return s.failure
	}
	s.refill = &refill{done: make(chan struct{})}
	_, high := s.levels()
	n := min(max(high, s.wanted)-len(s.ids), reserveChunk)
	s.running.Add(1)
	go s.run(s.refill, max(n, 1))
	return s.refill
}

func failed(err error) *refill {
	r := &refill{done: make(chan struct{}), err: err}
	close(r.done)
	return r
}

// run is the goroutine of one refill. If more is needed it starts the next.
func (s *Sequence) run(r *refill, n int) {
	defer s.running.Done()
	ctx, cancel := context.WithTimeout(s.ctx, refillTimeout)
	defer cancel()
	ids, err := s.reserve(ctx, n)

	s.mu.Lock()
	defer s.mu.Unlock()
	s.ids = append(s.ids, ids...)
	s.refill, s.failure, r.err = nil, nil, err
	close(r.done)
	if err != nil {
		s.failure, s.failedAt = r, s.now()
		return
	}
	if _, high := s.levels(); len(s.ids) < max(high, s.wanted) {
		s.start()
	}
}

// levels: below low the reserve is filled up to high. Call it with the lock held.
func (s *Sequence) levels() (low, high int) {
	want := max(reserveMin, int(s.rate.perSecond(s.now())*outageSeconds))
	high = min(want+want/4, s.most)
	return min(want, high*4/5), high
}

// meter is the rate of recent demand: it follows a rise at once and forgets it
// over minutes, so that a pause does not cost the reserve. One large request
// counts as spread over a window.
type meter struct {
	begun time.Time
	count int
	rate  float64 // per second, when the window began
}

const (
	meterWindow   = 10 * time.Second
	meterHalfLife = 60.0 // seconds
)

func (m *meter) add(now time.Time, n int) {
	if now.Sub(m.begun) >= meterWindow {
		m.rate, m.begun, m.count = m.perSecond(now), now, 0
	}
	m.count += n
}

func (m *meter) perSecond(now time.Time) float64 {
	seconds := max(now.Sub(m.begun), meterWindow).Seconds()
	return max(float64(m.count)/seconds, m.rate*math.Exp2(-seconds/meterHalfLife))
}
