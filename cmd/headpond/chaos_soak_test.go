//go:build linux

package main_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// soakFault is F52: all faults that may happen at any time, one after the other
// at random, on one stack.
var soakFault = &fault{
	id: "F52", what: "all of them, at random", mode: "S", poison: 200,
	how: "random faults of this page on one stack, seeded, with a few seconds of load in between; one row in 200 of a table is bad",
}

// TestSoak runs for HEADPOND_SOAK (30m). HEADPOND_SEED repeats its choices.
func TestSoak(t *testing.T) {
	v := os.Getenv("HEADPOND_SOAK")
	if v == "" {
		t.Skip("HEADPOND_SOAK=30m runs it: make soak")
	}
	d, err := time.ParseDuration(v)
	require.NoError(t, err)
	soak(t, buildProgram(t), d)
}

func soak(t *testing.T, program string, d time.Duration) {
	_, seed := seeded(t)
	fmt.Fprintf(os.Stderr, "soak for %s; to choose the same again: HEADPOND_SEED=%d\n", d, seed)
	began := time.Now()
	c := newChaos(t, program, seed, stackOptions{})
	c.load.pace = 100 * time.Millisecond
	c.load.poison.Store(soakFault.poison)
	c.load.start()
	c.acks(leastRows)
	stop := c.showProgress()
	defer stop()
	var choice []*fault
	for _, f := range faults {
		if _, missing := notYet[f.id]; f.soak && !missing {
			choice = append(choice, f)
		}
	}
	run := &faultRun{Seed: seed}
	happened := make(map[string]int)
	for time.Since(began) < d {
		c.lasts(time.Duration(c.r.ExpFloat64() * float64(2*time.Second)))
		f := pick(c.r, choice)
		happened[f.id]++
		c.step("%s begins: %s", f.id, f.what)
		f.happen(c)
		c.step("%s is over", f.id)
		run.Recovery = max(run.Recovery, c.recovered())
		if bad := c.load.trouble(); bad != "" || t.Failed() {
			t.Errorf("after %s: %s", f.id, bad)
			break
		}
	}
	c.acks(leastRows)
	c.load.stop()
	resolved := c.load.resolve()
	c.drained()
	run.verdict = *c.check(soakFault)
	run.Resolved, run.Took, run.Answers = resolved, time.Since(began), c.load.answers
	t.Logf("faults: %v", happened)
	soakFault.finish(t, run)
}

// trouble that the clients have seen so far.
func (l *chaosLoad) trouble() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.problems, "; ")
}

// showProgress writes a line every ten seconds.
func (c *chaos) showProgress() (stop func()) {
	done := make(chan struct{})
	go func() {
		tick := time.NewTicker(10 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			c.mu.Lock()
			last := ""
			for _, s := range c.told {
				if strings.Contains(s, " begins: ") {
					last = strings.TrimSpace(s)
				}
			}
			c.mu.Unlock()
			n, err := c.committed()
			stored := fmt.Sprint(n)
			if err != nil {
				stored = "?"
			}
			fmt.Fprintf(os.Stderr, "%6s  acknowledged %d, committed %s, refused %d, unknown %d; last: %s\n",
				time.Since(c.began).Round(time.Second), c.load.ok.Load(), stored, c.load.no.Load(), c.load.unknown.Load(), last)
		}
	}()
	return func() { close(done) }
}
