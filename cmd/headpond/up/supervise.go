package up

import (
	"context"
	"strings"
	"time"
)

const (
	firstDelay = 100 * time.Millisecond
	lastDelay  = 5 * time.Second
	settled    = 10 * time.Second // a child that lived this long died of something new
)

// Supervise starts the child again whenever it dies without having been asked
// to, until ctx ends: then it stops it and returns the outcome of that. It
// returns nil at once when Stop is called. The first start again is immediate,
// repeated ones wait longer and longer. A start that fails is tried again.
func (s *server) Supervise(ctx context.Context) error {
	var delay time.Duration
	_, quit := s.current()
	for {
		kid, _ := s.current()
		began := time.Now()
		select {
		case <-ctx.Done():
			return s.Stop()
		case <-quit:
			return nil
		case <-kid.done:
		}
		if time.Since(began) > settled {
			delay = 0
		}
		if !kid.expected.Load() {
			s.report(kid, delay)
		}
		if !pause(ctx, quit, delay) {
			continue
		}
		if err := s.revive(ctx, kid, quit); err != nil {
			s.log.Error("could not be started again", "error", err)
		}
		delay = min(max(2*delay, firstDelay), lastDelay)
	}
}

func (s *server) report(kid *child, delay time.Duration) {
	died := kid.died(s.name)
	s.log.Warn("died, starting it again", "pid", kid.pid(), "reason", died.Reason, "in", delay, "log", died.LogFile, "last", strings.Join(died.Last, " | "))
}

// revive starts a child in place of a dead one, unless Restart was faster.
func (s *server) revive(ctx context.Context, dead *child, quit chan struct{}) error {
	s.change.Lock()
	defer s.change.Unlock()
	if kid, _ := s.current(); kid != dead || isClosed(quit) || ctx.Err() != nil {
		return nil
	}
	if err := s.start(ctx, quit); err != nil && ctx.Err() == nil && !isClosed(quit) {
		return err
	}
	if kid, _ := s.current(); kid != dead {
		s.log.Info("is back", "pid", kid.pid(), "addr", s.Addr())
	}
	return nil
}

func pause(ctx context.Context, quit chan struct{}, delay time.Duration) bool {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-quit:
		return false
	case <-timer.C:
		return true
	}
}
