package api

import (
	"context"
	"sync"
	"time"

	"github.com/headpond/headpond/buffer"
)

// mostRefreshes bounds the rows that are loaded in the background at a time, and
// refreshTime each: half of the edge's connections stay for those who wait.
const (
	mostRefreshes = 4
	refreshTime   = 5 * time.Second
)

// renewer is the loads in the background. Safe for concurrent use.
type renewer struct {
	ctx  context.Context //nolint:containedctx // ends with the server
	stop context.CancelFunc

	mu      sync.Mutex // guards the rest, but for what all.Wait waits for
	running int
	closed  bool
	all     sync.WaitGroup
}

func (r *renewer) init() { r.ctx, r.stop = context.WithCancel(context.Background()) }

// enter reports whether there is room for one more.
func (r *renewer) enter() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed || r.running >= mostRefreshes {
		return false
	}
	r.running++
	r.all.Add(1)
	return true
}

func (r *renewer) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running--
	r.all.Done()
}

// refresh loads a clean row again in the background. It takes the place of the
// one that was found, and of no other: a write, an invalidation or another load
// has put something else there. When there is no room for it, or it fails, the
// next reader after a lease's time does it.
func (s *Server) refresh(g *reading, f *buffer.Found) {
	if !s.renewer.enter() {
		return
	}
	again := &reading{sv: g.sv, place: g.place, key: g.key, cells: g.cells}
	go func() {
		defer s.renewer.leave()
		defer func() {
			if err := recover(); err != nil {
				s.log.Error("refresh panicked", "error", err)
			}
		}()
		ctx, cancel := context.WithTimeout(s.renewer.ctx, refreshTime)
		defer cancel()
		row, found, err := s.edge.LoadRow(ctx, again.sv.Table, again.cells)
		if s.renewer.ctx.Err() != nil {
			return
		}
		if err != nil {
			s.log.Warn("refresh row", "table", again.sv.Target.Table, "error", err)
			return
		}
		if s.keep(ctx, again, f, row) && found {
			s.reads.of(again.sv.Target.Table).refreshed.Add(1)
		}
	}()
}

// Close ends what goes on in the background. To be called when no more requests
// come.
func (s *Server) Close() {
	s.streams.close()
	s.renewer.mu.Lock()
	s.renewer.closed = true
	s.renewer.mu.Unlock()
	s.renewer.stop()
	s.renewer.all.Wait()
}
