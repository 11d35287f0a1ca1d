package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/headpond/headpond/cmd/headpond/up"
)

// striker does to the stack what the plan says, and heals it.
type striker struct {
	stack *drillStack
	load  *drillLoad
	watch *drillWatch
	lasts time.Duration // of the drill
	say   func(string)  // tells what is being done
}

// run makes all faults happen, one after the other.
func (s *striker) run(ctx context.Context, plan []drillFault) (events []drillEvent, err error) {
	for i, f := range plan {
		s.rest(ctx, f.at)
		if i == 0 {
			s.watch.settle()
		}
		if ctx.Err() != nil {
			return events, ctx.Err()
		}
		s.say(fmt.Sprintf("%d of %d: %s", i+1, len(plan), f.kind))
		e := drillEvent{Fault: f.kind, Processes: 1, At: s.load.now().Seconds()}
		if err := s.strike(ctx, f, &e); err != nil {
			return events, fmt.Errorf("%s: %w", f.kind, err)
		}
		e.Healed = s.load.now().Seconds() - e.At
		events = append(events, e)
		s.say(fmt.Sprintf("%d of %d: %s, healed", i+1, len(plan), f.kind))
		s.calm(ctx)
	}
	return events, nil
}

// rest until the load has run for so long.
func (s *striker) rest(ctx context.Context, until time.Duration) { pause(ctx, until-s.load.now()) }

// calm waits until writes are accepted and the lag is normal, so that each
// fault has its own time to recover, unless the drill is late: then the next
// fault comes into the recovery from this one.
func (s *striker) calm(ctx context.Context) {
	acked := s.load.acked.Load()
	for late := time.Now().Add(s.lasts / 10); time.Now().Before(late) && ctx.Err() == nil; pause(ctx, drillSampleEvery) {
		if last := s.watch.last(); last.Lag <= s.watch.normal() && s.load.acked.Load() > acked {
			return
		}
	}
}

func (s *striker) strike(ctx context.Context, f drillFault, e *drillEvent) error {
	switch f.kind {
	case killFlusher:
		hit := s.stack.flushers
		if !f.all {
			hit = hit[f.process : f.process+1]
		}
		e.Processes = len(hit)
		return s.killProcesses(ctx, hit)
	case killAPI:
		if err := s.killProcesses(ctx, s.stack.apis[f.process:f.process+1]); err != nil {
			return err
		}
		waiting, cancel := context.WithTimeout(ctx, drillPatience)
		defer cancel()
		return awaitOK(waiting, "http://"+s.stack.addrs[f.process]+"/readyz")
	case killRedis:
		return errors.Join(s.stack.redis.Kill(), s.stack.redis.Restart(ctx))
	case killPostgres:
		return errors.Join(s.stack.postgres.Kill(), s.stack.postgres.Restart(ctx))
	case stopFlusher:
		e.Processes = len(s.stack.flushers)
		return s.freeze(ctx, f.lasts, s.stack.flushers[0].PID(), s.stack.flushers[1].PID())
	case stopRedis:
		return s.freeze(ctx, f.lasts, s.stack.redis.PID())
	case stopPostgres:
		return s.freeze(ctx, f.lasts, s.stack.postgres.PID())
	case fillBacklog:
		return s.fill(ctx)
	}
	return fmt.Errorf("there is no such fault")
}

// killProcesses returns when they have been started again.
func (s *striker) killProcesses(ctx context.Context, hit []*up.Process) error {
	ctx, cancel := context.WithTimeout(ctx, drillPatience)
	defer cancel()
	for _, p := range hit {
		if err := p.Kill(); err != nil {
			return err
		}
	}
	for _, p := range hit {
		for p.PID() == 0 {
			if pause(ctx, 5*time.Millisecond); ctx.Err() != nil {
				return errors.New("it was not started again")
			}
		}
	}
	return nil
}

// enoughRefusals of a backlog that is full.
const enoughRefusals = 20

// fill keeps Postgres away until the back-pressure is felt.
func (s *striker) fill(ctx context.Context) error {
	full := s.load.full.Load()
	err := s.stack.postgres.Kill()
	for late := time.Now().Add(s.lasts / 4); s.load.full.Load() < full+enoughRefusals && time.Now().Before(late) && ctx.Err() == nil; {
		pause(ctx, drillSampleEvery)
	}
	return errors.Join(err, s.stack.postgres.Restart(ctx))
}

// freeze stops processes and their children for a while.
func (s *striker) freeze(ctx context.Context, lasts time.Duration, pids ...int) error {
	var all []int
	for _, pid := range pids {
		if pid != 0 {
			all = append(all, pid)
		}
	}
	var errs []error
	for i := 0; i < len(all); i++ { // a parent first: it then has no more children
		errs = append(errs, signalIfThere(all[i], syscall.SIGSTOP))
		all = append(all, childrenOf(all[i])...)
	}
	pause(ctx, lasts)
	for _, pid := range all {
		errs = append(errs, signalIfThere(pid, syscall.SIGCONT))
	}
	return errors.Join(errs...)
}

func signalIfThere(pid int, sig syscall.Signal) error {
	if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal process %d: %w", pid, err)
	}
	return nil
}

// childrenOf a process; none where there is no /proc.
func childrenOf(pid int) (children []int) {
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		child, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if s, err := readStat(child); err == nil && s.parent == pid {
			children = append(children, child)
		}
	}
	return children
}
