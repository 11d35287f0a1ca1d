package buffer

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// readLanes is how many pipelines of reads may be in flight.
const readLanes = 2

// mostReads bounds what a lane takes at a time.
const mostReads = 512

// readQueue holds the reads that wait for a lane. A lane is no goroutine: a
// reader who finds one free takes it, reads for all that wait, and hands it on.
// So at low load a read goes alone and at once, and under load those that come
// while a round trip is in flight share the next one. No answer is older than
// the question: a read waits only for calls that are sent after it came.
type readQueue struct {
	mu      sync.Mutex // guards the rest; never held while talking to Redis
	waiting []*reader
	busy    int // lanes

	hangs atomic.Int64 // until then ReadSoon does not ask: unix nanoseconds
}

// reader is somebody who waits for the answer to a question.
type reader struct {
	asked asked
	found *Found
	err   error
	turn  chan bool // false: it is answered; true: it has a lane
}

var readers = sync.Pool{New: func() any { return &reader{turn: make(chan bool, 1)} }}

// Read reads the newest row of a key.
func (b *Buffer) Read(p Place, key string, want Want) (*Found, error) {
	r := readers.Get().(*reader) //nolint:forcetypeassert // nothing else is put there
	r.asked = asked{Asked{p, key}, want}
	if b.reads.enter(r) || <-r.turn {
		b.readAll(b.reads.take(r))
		b.reads.leave()
	}
	found, err := r.found, r.err
	r.asked, r.found, r.err = asked{}, nil, nil
	readers.Put(r)
	return found, err
}

// soon bounds what is asked of Redis where Postgres can be asked instead, and how
// long nobody asks again after that.
const soon = time.Second

// ReadSoon is Read for who can go to Postgres as well: ErrUnavailable also when
// Redis hangs, at once if it did a moment ago.
func (b *Buffer) ReadSoon(p Place, key string, want Want) (*Found, error) {
	if time.Now().UnixNano() < b.reads.hangs.Load() {
		return nil, unavailable("read key partition="+p.String(), context.DeadlineExceeded)
	}
	type answer struct {
		found *Found
		err   error
	}
	answered := make(chan answer, 1)
	go func() {
		found, err := b.Read(p, key, want)
		answered <- answer{found, err}
	}()
	late := time.NewTimer(soon)
	defer late.Stop()
	select {
	case a := <-answered:
		return a.found, a.err
	case <-late.C:
		b.reads.hangs.Store(time.Now().Add(soon).UnixNano())
		return nil, unavailable("read key partition="+p.String(), context.DeadlineExceeded)
	}
}

// enter gives a reader a lane, or puts it into the queue.
func (q *readQueue) enter(r *reader) (lane bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.busy < readLanes {
		q.busy++
		return true
	}
	q.waiting = append(q.waiting, r)
	return false
}

// take gives the reader who has a lane, and others that wait.
func (q *readQueue) take(r *reader) []*reader {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(len(q.waiting), mostReads-1)
	all := append(append(make([]*reader, 0, n+1), r), q.waiting[:n]...)
	rest := copy(q.waiting, q.waiting[n:])
	clear(q.waiting[rest:])
	q.waiting = q.waiting[:rest]
	return all
}

// leave hands a lane on.
func (q *readQueue) leave() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		q.busy--
		return
	}
	next := q.waiting[0]
	rest := copy(q.waiting, q.waiting[1:])
	q.waiting[rest] = nil
	q.waiting = q.waiting[:rest]
	next.turn <- true
}

// readAll answers readers. The first of them has the lane.
func (b *Buffer) readAll(all []*reader) {
	ctx, cancel := context.WithTimeout(context.Background(), b.cfg.CallTimeout) // of many requests: none may end it
	defer cancel()
	questions := make([]asked, len(all))
	for i, r := range all {
		questions[i] = r.asked
	}
	found, errs := b.look(ctx, questions)
	for i, r := range all {
		if r.found, r.err = found[i], errs[i]; i > 0 {
			r.turn <- false
		}
	}
}
