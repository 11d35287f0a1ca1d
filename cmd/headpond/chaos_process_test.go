//go:build linux

package main_test

import (
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"
)

// Faults of our own processes.
var processFaults = []*fault{
	{
		id: "F2", what: "API killed", mode: "S", soak: true, happen: killAPIs,
		how: "SIGKILL to one API, then to the other, three times, requests in flight; requests without an answer are repeated under their Idempotency-Key",
	},
	{
		id: "F3", what: "zombie flushers", mode: "S", happen: zombies,
		how: "SIGSTOP to every flusher while they hold transactions; a third one takes over once Postgres has ended these; SIGCONT",
	},
	{
		id: "F47", what: "flushers killed all the time", mode: "S", soak: true, happen: killFlushersAtRandom,
		how: "four flushers on the same partitions; a random one gets SIGKILL every few hundred rows, 16 times",
	},
	{
		id: "F48", what: "SIGTERM and SIGKILL before the end", mode: "S", soak: true, happen: endInAHurry,
		how: "SIGTERM to an API and a flusher under load, SIGKILL 0 to 300 ms later; then both again with SIGTERM alone",
	},
	{
		id: "F49", what: "no file descriptors left", mode: "S", soak: true, happen: noDescriptors,
		how: "prlimit takes the file descriptors of an API and a flusher away; their connections are cut; two seconds later they get them back",
	},
}

func killAPIs(c *chaos) {
	c.times(3, func() {
		for range 2 {
			h := c.apis[0]
			h.kill()
			c.replaceAPI(h)
		}
	})
}

func zombies(c *chaos) {
	c.flushPostgres.set(func(w *wire) { w.up.latency = 30 * time.Millisecond }) // so that they are in a transaction at most times
	held := func() int64 {
		return value[int64](c.T, c.postgres.URL(), `
			select count(*) from pg_stat_activity where application_name = 'headpond flusher' and state = 'idle in transaction' and state_change < now() - interval '300 ms'`)
	}
	stopped := append([]*process(nil), c.flushers...)
	signal := func(s syscall.Signal) {
		for _, p := range stopped {
			require.NoError(c, p.cmd.Process.Signal(s))
		}
	}
	c.await("flushers that hold a watermark", func() bool {
		signal(syscall.SIGSTOP)
		<-time.After(500 * time.Millisecond)
		if held() > 0 {
			return true
		}
		signal(syscall.SIGCONT)
		return false
	})
	c.flushPostgres.heal()
	c.startFlusher()
	// What they hold is free when idle_in_transaction_session_timeout is over.
	c.await("Postgres to end their transactions", func() bool { return held() == 0 })
	c.commits(leastRows)
	signal(syscall.SIGCONT)
	c.commits(leastRows)
}

func killFlushersAtRandom(c *chaos) {
	for len(c.flushers) < 4 {
		c.startFlusher()
	}
	for range 16 {
		c.commits(c.r.Int64N(200))
		p := pick(c.r, c.flushers)
		p.kill()
		c.replaceFlusher(p)
	}
}

func endInAHurry(c *chaos) {
	hurry := func(p *process, patience time.Duration) {
		p.killed = true
		p.terminate()
		select {
		case <-p.done:
		case <-time.After(patience):
			p.kill()
		}
	}
	for _, patience := range []time.Duration{time.Duration(c.r.IntN(300)) * time.Millisecond, 30 * time.Second} {
		h, p := c.apis[0], c.flushers[0]
		hurry(h.process, patience)
		c.replaceAPI(h)
		hurry(p, patience)
		c.replaceFlusher(p)
		c.acks(100)
	}
}

func noDescriptors(c *chaos) {
	h, p := c.apis[0].process, c.flushers[0]
	for _, x := range []*process{h, p} {
		limitDescriptors(c, x.pid(), 8)
	}
	for _, w := range []*wire{c.apiRedis, c.flushRedis, c.apiPostgres, c.flushPostgres} {
		w.cut()
	}
	c.lasts(2 * time.Second)
	require.False(c, h.ended(), "the API ended for want of descriptors")
	require.False(c, p.ended(), "the flusher ended for want of descriptors")
	for _, x := range []*process{h, p} {
		limitDescriptors(c, x.pid(), 1024)
	}
}

// metric sums a metric over the APIs that live.
func (c *chaos) metric(name string) (sum float64) {
	for _, h := range c.apis {
		a, err := request(http.MethodGet, h.api+"/metrics", "", "")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(a.body)) {
			if rest, ok := strings.CutPrefix(line, name); ok && !strings.HasPrefix(line, "#") {
				sum += lastNumber(rest)
			}
		}
	}
	return sum
}
