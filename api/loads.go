package api

import (
	"context"
	"sync"
	"time"
)

// loads is the rows that this process is loading from Postgres, so that those
// who wait for one hear of its end. They read it from Redis then, as it is
// after they came. Safe for concurrent use.
type loads struct {
	mu sync.Mutex
	of map[string]chan struct{}
}

func (l *loads) name(g *reading) string { return g.sv.Target.Table + "\x00" + g.key }

// begin notes that a row is being loaded, until end is called.
func (l *loads) begin(g *reading) (end func()) {
	name, done := l.name(g), make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = make(map[string]chan struct{})
	}
	l.of[name] = done
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		close(done)
		if l.of[name] == done {
			delete(l.of, name)
		}
	}
}

// await waits for the end of a load, at most a second; for so long when another
// process loads the row. It reports false when ctx has ended.
func (l *loads) await(ctx context.Context, g *reading, elsewhere time.Duration) bool {
	l.mu.Lock()
	done := l.of[l.name(g)]
	l.mu.Unlock()
	if done != nil {
		elsewhere = time.Second
	}
	select {
	case <-ctx.Done():
		return false
	case <-done:
	case <-time.After(elsewhere):
	}
	return true
}
