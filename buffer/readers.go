package buffer

import (
	"context"
	"sync"
)

// Reads that come while others are on their way to Redis go together, in one
// pipeline: most of what a read costs is the system calls of its round trip.
// Nobody waits for company: whoever finds fewer than mostReaders on their way
// goes at once, and takes along all that wait.

const (
	mostReaders  = 2 // one is on its way while another is being taken apart
	readTogether = 128
)

// readers is the reads that wait. Safe for concurrent use.
type readers struct {
	mu      sync.Mutex
	waiting []*Reading
	going   int
}

// Read reads the newest row of a key. It may answer later than ctx allows, by
// at most Config.CallTimeout.
func (b *Buffer) Read(ctx context.Context, r *Reading) (*Found, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	q := &b.readers
	q.mu.Lock()
	if q.going >= mostReaders {
		r.done = make(chan struct{})
		q.waiting = append(q.waiting, r)
		q.mu.Unlock()
		<-r.done
		return r.found, r.err
	}
	q.going++
	q.mu.Unlock()
	b.readTogether([]*Reading{r})
	q.mu.Lock()
	if len(q.waiting) > 0 {
		go b.readOn() // not the caller, who has its answer
	} else {
		q.going--
	}
	q.mu.Unlock()
	return r.found, r.err
}

// readOn goes on for as long as reads wait.
func (b *Buffer) readOn() {
	q := &b.readers
	for {
		q.mu.Lock()
		n := min(len(q.waiting), readTogether)
		if n == 0 {
			q.going--
			q.mu.Unlock()
			return
		}
		reads := append([]*Reading(nil), q.waiting[:n]...)
		q.waiting = append(q.waiting[:0], q.waiting[n:]...)
		q.mu.Unlock()
		b.readTogether(reads)
	}
}

func (b *Buffer) readTogether(reads []*Reading) {
	ctx, cancel := context.WithTimeout(context.Background(), b.cfg.CallTimeout)
	defer cancel()
	b.readAll(ctx, reads)
	for _, r := range reads {
		if r.done != nil {
			close(r.done)
		}
	}
}
