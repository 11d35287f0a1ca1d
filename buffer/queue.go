package buffer

import "sync"

// queue holds the chunks that wait for a lane. There is no timer: a lane that
// is free takes at once whatever is there, so at low load a write goes alone,
// and under load the next batch fills while a round trip is in flight.
type queue struct {
	mu     sync.Mutex // guards the rest; never held while talking to Redis
	ready  sync.Cond
	chunks []*Chunk
	closed bool
}

func (q *queue) init() { q.ready.L = &q.mu }

func (q *queue) put(chunks []*Chunk) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.chunks = append(q.chunks, chunks...)
	q.ready.Signal()
	return true
}

// take waits for chunks and gives up to most rows of them; nil when the queue
// is closed and empty.
func (q *queue) take(most int, into []*Chunk) []*Chunk {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.chunks) == 0 {
		if q.closed {
			return nil
		}
		q.ready.Wait()
	}
	rows, n := 0, 0
	for n < len(q.chunks) && (n == 0 || rows+q.chunks[n].Len() <= most) {
		rows += q.chunks[n].Len()
		n++
	}
	into = append(into[:0], q.chunks[:n]...)
	rest := copy(q.chunks, q.chunks[n:])
	clear(q.chunks[rest:])
	q.chunks = q.chunks[:rest]
	if rest > 0 {
		q.ready.Signal()
	}
	return into
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.ready.Broadcast()
}
