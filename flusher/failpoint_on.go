//go:build failpoints

package flusher

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// failure is what happens at a failpoint.
type failure struct {
	action string
	only   int64 // at this time alone; 0: every time
	times  atomic.Int64
}

// failures that the environment asks for. A mistake in it ends the program: a
// test whose fault is not there would prove nothing.
var failures = func() map[Failpoint]*failure {
	out := make(map[Failpoint]*failure)
	for _, one := range strings.Split(os.Getenv("HEADPOND_FAILPOINT"), ";") {
		if one == "" {
			continue
		}
		name, action, given := strings.Cut(one, "=")
		if !given || !slices.Contains(slices.Concat(Failpoints, DirectFailpoints), Failpoint(name)) {
			panic("HEADPOND_FAILPOINT: there is no " + one)
		}
		f := &failure{}
		var when string
		f.action, when, _ = strings.Cut(action, ":")
		switch n, err := strconv.ParseInt(when, 10, 64); {
		case when == "random":
			f.only = 1 + rand.Int64N(8) //nolint:gosec // no secret
		case err == nil:
			f.only = n
		case when != "":
			panic("HEADPOND_FAILPOINT: when is " + when)
		}
		out[Failpoint(name)] = f
	}
	return out
}()

// Reach does what the environment asks for at this step.
func (p Failpoint) Reach() error {
	f := failures[p]
	if f == nil {
		return nil
	}
	if n := f.times.Add(1); f.only != 0 && n != f.only {
		return nil
	}
	switch f.action {
	case "kill":
		die()
	case "kill-soon":
		go func() {
			time.Sleep(time.Duration(rand.Int64N(int64(2 * time.Millisecond)))) //nolint:gosec // no secret
			die()
		}()
	case "panic":
		panic("failpoint " + string(p))
	case "error":
		return fmt.Errorf("failpoint %s", p)
	default:
		d, err := time.ParseDuration(strings.TrimSuffix(strings.TrimPrefix(f.action, "sleep("), ")"))
		if err != nil {
			panic("HEADPOND_FAILPOINT: there is no action " + f.action)
		}
		time.Sleep(d)
	}
	return nil
}

func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {} // it is on its way
}
