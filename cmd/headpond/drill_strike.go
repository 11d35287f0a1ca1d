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

// striker makes the faults of a plan happen, one after the other.
type striker struct {
	load   *drillLoad
	watch  *drillWatch
	lasts  time.Duration // of the drill
	least  int64         // writes before the first fault
	say    func(string)  // tells what is being done
	strike strike
}

// strike makes a fault happen, heals it, and notes how many processes it hit.
type strike func(ctx context.Context, s *striker, f drillFault, e *drillEvent) error

// run the plan.
func (s *striker) run(ctx context.Context, plan []drillFault) (events []drillEvent, err error) {
	for i, f := range plan {
		s.rest(ctx, f.at)
		if i == 0 {
			s.acknowledged(ctx, s.least)
			s.watch.settle()
		}
		if ctx.Err() != nil {
			return events, ctx.Err()
		}
		s.say(fmt.Sprintf("%d of %d: %s", i+1, len(plan), f.kind))
		e := drillEvent{Fault: f.kind, Processes: 1, At: s.load.now().Seconds()}
		if err := s.strike(ctx, s, f, &e); err != nil {
			return events, fmt.Errorf("%s: %w", f.kind, err)
		}
		e.Healed = s.load.now().Seconds() - e.At
		events = append(events, e)
		s.say(fmt.Sprintf("%d of %d: %s, healed", i+1, len(plan), f.kind))
		s.calm(ctx, s.load.acked.Load())
	}
	return events, nil
}

// rest until the load has run for so long.
func (s *striker) rest(ctx context.Context, until time.Duration) { pause(ctx, until-s.load.now()) }

// acknowledged waits until so many writes are, on a machine that has little
// time for them, but not for ever: then the report says what is missing.
func (s *striker) acknowledged(ctx context.Context, writes int64) {
	for late := time.Now().Add(time.Minute); s.load.acked.Load() < writes && time.Now().Before(late) && ctx.Err() == nil; {
		pause(ctx, drillSampleEvery)
	}
}

// calm waits until more writes are acknowledged and the lag is normal, so that
// each fault has its own time to recover, but not for ever: then the next fault
// comes into the recovery from this one.
func (s *striker) calm(ctx context.Context, acked int64) {
	for late := time.Now().Add(s.lasts / 10); time.Now().Before(late) && ctx.Err() == nil; pause(ctx, drillSampleEvery) {
		if last := s.watch.last(); last.Lag <= s.watch.normal() && s.load.acked.Load() > acked {
			return
		}
	}
}

// strike is that of a private stack.
func (d *drillStack) strike(ctx context.Context, s *striker, f drillFault, e *drillEvent) error {
	switch f.kind {
	case killFlusher:
		hit := d.flushers
		if !f.all {
			hit = hit[f.process : f.process+1]
		}
		e.Processes = len(hit)
		return killProcesses(ctx, hit)
	case killAPI:
		if err := killProcesses(ctx, d.apis[f.process:f.process+1]); err != nil {
			return err
		}
		waiting, cancel := context.WithTimeout(ctx, drillPatience)
		defer cancel()
		return awaitOK(waiting, "http://"+d.addrs[f.process]+"/readyz")
	case killRedis:
		return errors.Join(d.redis.Kill(), d.redis.Restart(ctx))
	case killPostgres:
		return errors.Join(d.postgres.Kill(), d.postgres.Restart(ctx))
	case stopFlusher:
		e.Processes = len(d.flushers)
		return freeze(ctx, f.lasts, d.flushers[0].PID(), d.flushers[1].PID())
	case stopRedis:
		return freeze(ctx, f.lasts, d.redis.PID())
	case stopPostgres:
		return freeze(ctx, f.lasts, d.postgres.PID())
	case fillBacklog:
		return d.fill(ctx, s)
	}
	return fmt.Errorf("there is no such fault")
}

// killProcesses returns when they have been started again.
func killProcesses(ctx context.Context, hit []*up.Process) error {
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
func (d *drillStack) fill(ctx context.Context, s *striker) error {
	full := s.load.full.Load()
	err := d.postgres.Kill()
	for late := time.Now().Add(s.lasts / 4); s.load.full.Load() < full+enoughRefusals && time.Now().Before(late) && ctx.Err() == nil; {
		pause(ctx, drillSampleEvery)
	}
	return errors.Join(err, d.postgres.Restart(ctx))
}

// freeze stops processes and their children for a while.
func freeze(ctx context.Context, lasts time.Duration, pids ...int) error {
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
