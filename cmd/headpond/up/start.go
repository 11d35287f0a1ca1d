package up

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"time"
)

const (
	startTries   = 20
	patientAfter = 5 * time.Second // a start that takes longer says so, again and again
)

// begin is the first start of a server that nobody else has seen yet.
func (s *server) begin(ctx context.Context) error {
	s.change.Lock()
	defer s.change.Unlock()
	if err := s.start(ctx, s.arm()); err != nil {
		if s.lock != nil {
			err = errors.Join(err, s.lock.release())
			s.lock = nil
		}
		err = errors.Join(err, s.forget())
		return fmt.Errorf("start %s: %w", s.name, err)
	}
	return nil
}

// start makes the directory ours and fit, and starts a child in it. The caller
// holds change, and no child of ours is alive.
func (s *server) start(ctx context.Context, quit chan struct{}) error {
	if s.forgotten {
		return ErrForgotten
	}
	if s.lock == nil {
		held, err := takeLock(s.dir)
		if err != nil {
			return err
		}
		s.lock = held
	}
	if err := s.clean(ctx); err != nil {
		return err
	}
	return s.launch(ctx, quit)
}

func (s *server) clean(ctx context.Context) error {
	if err := endStale(ctx, s.dir, s.traits); err != nil {
		return err
	}
	return s.engine.prepare(ctx)
}

// launch starts a child on a free port. Between looking and binding, somebody
// else may take the port: before an address was given out, another will do.
func (s *server) launch(ctx context.Context, quit chan struct{}) error {
	for try := 1; ; try++ {
		port, fixed, err := s.choosePort()
		if err != nil {
			return err
		}
		err = s.run(ctx, port, quit)
		var died *DiedError
		switch {
		case err == nil:
			return s.keepPort(port)
		case !errors.As(err, &died) || fixed || try == startTries || !died.says("Address already in use"):
			return err
		}
	}
}

func (s *server) choosePort() (port int, fixed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.port != 0 {
		return s.port, true, nil
	}
	port, err = pickPort(readNumber(filepath.Join(s.dir, "port")))
	return port, false, err
}

// run starts one child and waits until it serves. If that fails, there is no child.
func (s *server) run(ctx context.Context, port int, quit chan struct{}) error {
	program, args := s.engine.command(port)
	kid, err := spawn(command(s.dir, s.who, s.traits.deathSignal, program, args...), s.LogFile(), s.who)
	if err != nil {
		return err
	}
	err = writePID(s.dir, kid.pid())
	if err == nil {
		err = s.await(ctx, kid, port, quit)
	}
	if err == nil {
		err = s.engine.greet(ctx, port)
	}
	if err != nil {
		return errors.Join(err, s.abandon(kid))
	}
	s.mu.Lock()
	s.kid = kid
	s.mu.Unlock()
	return nil
}

// abandon ends a child that nobody has been told of.
func (s *server) abandon(kid *child) error {
	if err := kid.signal(s.traits.deathSignal); err != nil {
		return err
	}
	if kid.within(killedPatience) {
		return nil
	}
	return kid.signal(syscall.SIGKILL)
}

// await waits for as long as the child lives: recovery after a crash takes the
// time it takes, and to kill a server in the midst of it would help nobody.
func (s *server) await(ctx context.Context, kid *child, port int, quit chan struct{}) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	slow := time.NewTicker(patientAfter)
	defer slow.Stop()
	for !s.engine.ready(ctx, kid.pid(), port) {
		select {
		case <-look.C:
		case <-slow.C:
			s.log.Info("still starting", "last", lastLine(tail(kid.log, kid.logFrom)))
		case <-kid.done:
			return kid.died(s.name)
		case <-quit:
			return ErrStopped
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func lastLine(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	return lines[len(lines)-1]
}
