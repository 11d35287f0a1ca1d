package api

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// loads tells the readers of this process that a load of theirs is over.
// Safe for concurrent use.
type loads struct {
	mu    sync.Mutex // guards began
	began map[string]chan struct{}
}

func (l *loads) init() { l.began = make(map[string]chan struct{}) }

// begin notes that a load under a lease begins; call end when its row lies in
// Redis, or will not.
func (l *loads) begin(id string) (end func()) {
	done := make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.began[id] = done
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.began[id] == done { // or the lease has ended, and another one was given out
			delete(l.began, id)
		}
		close(done)
	}
}

// ended is closed when the load is over; nil when nobody in this process loads it.
func (l *loads) ended(id string) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.began[id]
}

// waiting is a reader who waits for the load of another one. What that one
// loads is no answer for it, because the load may have begun before it came:
// when it is over the reader looks in Redis again.
type waiting struct {
	s     *Server
	g     *reading
	until time.Time
	next  time.Duration
}

// id of the key, among those of all tables.
func (g *reading) id() string { return g.sv.Target.Table + "\x00" + g.key }

// over reports whether the reader has waited for longer than any lease stands.
func (w *waiting) over() bool {
	if w.until.IsZero() {
		w.until = time.Now().Add(w.s.buffer.LeaseTime() + time.Second)
	}
	return time.Now().After(w.until)
}

// The first look is after firstPause, for a load takes a millisecond or two; the
// pauses grow up to mostPause. The end of a load in this process is heard of at
// once, so a look is needed only when it was lost.
const (
	firstPause = 4 * time.Millisecond
	mostPause  = 60 * time.Millisecond
	heardPause = 250 * time.Millisecond
)

func (w *waiting) pause(ctx context.Context) error {
	ended := w.s.loads.ended(w.g.id())
	w.next = min(max(w.next*3/2, firstPause), mostPause)
	d := w.next
	if ended != nil {
		d = heardPause
	}
	timer := time.NewTimer(d/2 + rand.N(d)) //nolint:gosec // jitter
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return fault(codeStoreUnavailable, "The row is being loaded, and that takes too long.")
	case <-ended:
	case <-timer.C:
	}
	return nil
}
