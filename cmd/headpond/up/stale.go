package up

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// farewell is one way to ask a child to end, and how long to wait for it.
type farewell struct {
	signal   syscall.Signal
	patience time.Duration
}

const (
	lookEvery      = 5 * time.Millisecond
	killedPatience = 10 * time.Second
)

// pidFile is "<pid> <start time>": the start time tells our child from whoever
// was given its process id later.
func writePID(dir string, pid int) error {
	return writeFile(filepath.Join(dir, "pid"), strconv.Itoa(pid)+" "+startTime(pid))
}

// recorded is the process that the pid file names, if it is still the same one.
func recorded(dir string) (pid int, ok bool) {
	text, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		return 0, false
	}
	first, started, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
	pid, err = strconv.Atoi(first)
	if err != nil || pid <= 0 {
		return 0, false
	}
	return pid, started != "" && startTime(pid) == started
}

// endStale ends what an earlier owner of the directory left running: the
// children of a process killed where there is no parent-death signal, the
// backends of a killed postmaster. The caller holds the directory's lock, so no
// living owner can miss them. They are ended and not adopted: nobody but their
// parent can wait for them, and a new start takes a fraction of a second.
func endStale(ctx context.Context, dir string, t traits) error {
	if main, ok := recorded(dir); ok && worksIn(main, dir, t.programs) {
		if err := bidFarewell(ctx, main, dir, t); err != nil {
			return err
		}
	}
	var left []int
	gone := goneWithin(ctx, killedPatience, func() bool {
		left = workers(dir, t.programs)
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL) // refused or gone: the next look tells
		}
		return len(left) == 0
	})
	if !gone && ctx.Err() == nil {
		return fmt.Errorf("processes %v still work in %s: end them, then start again", left, dir)
	}
	return ctx.Err()
}

// bidFarewell ends the server itself politely, if it will.
func bidFarewell(ctx context.Context, pid int, dir string, t traits) error {
	gone := func() bool { return !worksIn(pid, dir, t.programs) }
	for _, way := range append(slices.Clone(t.farewells), farewell{syscall.SIGKILL, killedPatience}) {
		if err := syscall.Kill(pid, way.signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end leftover server pid=%d: %w", pid, err)
		}
		if goneWithin(ctx, way.patience, gone) || ctx.Err() != nil {
			break
		}
	}
	return ctx.Err()
}

// goneWithin looks until there is nothing left, for a while.
func goneWithin(ctx context.Context, patience time.Duration, gone func() bool) bool {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for !gone() {
		select {
		case <-look.C:
		case <-deadline.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return true
}
