//go:build linux

package main_test

import (
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// fault is one row of the matrix of faults. Its id is that of the specification,
// with a letter behind it where there are several ways.
type fault struct {
	id   string
	what string
	how  string
	mode string // S: one Redis, fsync before each answer; R: with a replica; E: fsync each second
	// loses: what was acknowledged may be lost, and then Headpond must say how
	// much. Otherwise nothing may be lost.
	loses bool
	// rewinds: a server goes back, and until Headpond has noticed that nobody can
	// rely on what is read; anyOrder: writes are acknowledged by two masters.
	rewinds, anyOrder bool
	stack             stackOptions
	// happen does it while the load runs, waits until it has shown, and mends
	// what nobody but an operator could mend.
	happen func(c *chaos)
	// poison: one of so many rows of one table is one that Postgres refuses.
	poison int64
	// soak: it may happen at any time, any number of times, on one stack.
	soak bool
	// without, if it gives a reason, says why it cannot be produced here.
	without func() string
}

// promise in a word.
func (f *fault) promise() string {
	if f.loses {
		return "loss = reported"
	}
	return "zero"
}

// leastRows must be acknowledged before and after a fault, or the run says nothing.
const leastRows = 300

// TestChaos makes faults happen to the real program under load. Without
// HEADPOND_CHAOS it is a short form; "all" is all that can be produced here, and
// F22,F28a those. HEADPOND_SEED repeats the random choices of a run,
// HEADPOND_RUNS says how often each fault happens.
func TestChaos(t *testing.T) {
	program := buildProgram(t)
	t.Parallel()
	chosen := shortForm
	if v := os.Getenv("HEADPOND_CHAOS"); v != "" {
		chosen = strings.Split(v, ",")
	}
	runChaos(t, program, chosen)
}

// shortForm is what runs with all other tests.
var shortForm = []string{"F5", "F22", "F36"}

// twoAtATime: each fault has a stack of its own, and two of them fill a small
// machine.
const twoAtATime = 2

func runChaos(t *testing.T, program string, chosen []string) {
	runs := 1
	if v := os.Getenv("HEADPOND_RUNS"); v != "" {
		n, err := strconv.Atoi(v)
		require.NoError(t, err)
		runs = n
	}
	all := slices.Equal(chosen, []string{"all"})
	places := make(chan struct{}, twoAtATime)
	known := 0
	t.Run("faults", func(t *testing.T) {
		for _, f := range faults {
			if !all && !slices.Contains(chosen, f.id) {
				continue
			}
			known++
			for n := range runs {
				t.Run(f.id+"-"+strconv.Itoa(n+1), func(t *testing.T) {
					t.Parallel()
					places <- struct{}{}
					defer func() { <-places }() // after the cleanups of newChaos, which come with the end of inner
					t.Run(slug(f.what), func(t *testing.T) { f.run(t, program) })
				})
			}
		}
	})
	if !all {
		require.Equal(t, len(chosen), known, "there is no such fault among %v", chosen)
	}
}

func slug(what string) string { return strings.ReplaceAll(what, " ", "-") }

func (f *fault) run(t *testing.T, program string) {
	if why, ok := notYet[f.id]; ok && os.Getenv("HEADPOND_NOT_YET") == "" {
		t.Skip("not yet: " + why)
	}
	if f.without != nil {
		if why := f.without(); why != "" {
			t.Skip("cannot be produced here: " + why)
		}
	}
	_, seed := seeded(t)
	began := time.Now()
	c := newChaos(t, program, seed, f.stack)
	c.load.forgets.Store(f.loses || f.rewinds)
	c.load.poison.Store(f.poison)
	c.load.start()
	c.acks(leastRows)
	c.commits(leastRows / 2)
	before := c.load.ok.Load()
	c.step("%s begins: %s", f.id, f.what)
	f.happen(c)
	c.step("%s is over", f.id)
	run := &faultRun{Seed: seed, Recovery: c.recovered()}
	after := c.load.ok.Load()
	c.acks(leastRows)
	c.load.stop()
	if !f.loses {
		run.Resolved = c.load.resolve()
	}
	c.drained()
	resolved := run.Resolved
	run.verdict = *c.check(f)
	run.Resolved, run.Took, run.Answers = resolved, time.Since(began), c.load.answers
	t.Logf("%d before, %d during, after %d more", before, after-before, c.load.ok.Load()-after)
	f.finish(t, run)
}

// finish says what came of a run, and keeps it for the page.
func (f *fault) finish(t *testing.T, run *faultRun) {
	t.Logf("%s: acknowledged %d, lost %d, reported lost %d, twice %d, unknown %d (%d told by a repeat), recovery %s, all %s; answers %v",
		f.id, run.Acked, run.Lost, run.Reported, run.Twice, run.Unknown, run.Resolved,
		run.Recovery.Round(time.Millisecond), run.Took.Round(100*time.Millisecond), run.Answers)
	for _, p := range run.Problems {
		t.Errorf("%s (HEADPOND_SEED=%d): %s", f.id, run.Seed, p)
	}
	results.mu.Lock()
	defer results.mu.Unlock()
	if results.runs == nil {
		results.runs = make(map[string][]*faultRun)
	}
	results.runs[f.id] = append(results.runs[f.id], run)
}

// pick one at random.
func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

// times does it so often, with some load in between.
func (c *chaos) times(n int, do func()) {
	for i := range n {
		c.step("%d of %d", i+1, n)
		do()
		c.acks(50 + c.r.Int64N(100))
	}
}
