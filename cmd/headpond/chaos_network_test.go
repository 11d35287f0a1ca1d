//go:build linux

package main_test

import (
	"time"

	"github.com/stretchr/testify/require"
)

// Faults of the network between our processes and the servers.
var networkFaults = []*fault{
	{
		id: "F36", what: "answers of Redis lost", mode: "S", soak: true, happen: lostAnswers,
		how: "a proxy lets calls through and swallows the answers, then breaks the connections, three times",
	},
	{
		id: "F37", what: "slow bytes and resets", mode: "S", soak: true, happen: slowAndReset,
		how: "a proxy passes 512 bytes at a time with 1 ms in between, then breaks all connections to Redis and Postgres 40 times",
	},
	{
		id: "F38a", what: "API cut off from Redis", mode: "S", soak: true, happen: cutOff(func(c *chaos) *wire { return c.apiRedis }),
		how: "a proxy holds back what the API sends to Redis, then what it gets, then both: 2 s each",
	},
	{
		id: "F38b", what: "flusher cut off from Redis", mode: "S", soak: true, happen: cutOff(func(c *chaos) *wire { return c.flushRedis }),
		how: "the same between flushers and Redis",
	},
	{
		id: "F38c", what: "flusher cut off from Postgres", mode: "S", soak: true, happen: cutOff(func(c *chaos) *wire { return c.flushPostgres }),
		how: "the same between flushers and Postgres",
	},
	{
		id: "F38d", what: "API cut off from Postgres", mode: "S", soak: true, happen: cutOff(func(c *chaos) *wire { return c.apiPostgres }),
		how: "the same between the API and Postgres",
	},
}

func lostAnswers(c *chaos) {
	const repeats = "headpond_append_repeats_total"
	before := c.metric(repeats)
	c.times(3, func() {
		c.apiRedis.hold(false, true)
		c.lasts(500 * time.Millisecond) // a call of each lane is on its way
		c.apiRedis.cut()
		c.apiRedis.heal()
	})
	require.Greater(c, c.metric(repeats), before, "no call was sent twice: the test means nothing")
}

func slowAndReset(c *chaos) {
	drip := manner{latency: time.Millisecond, slice: 512}
	wires := []*wire{c.apiRedis, c.flushRedis, c.apiPostgres, c.flushPostgres}
	for _, w := range wires {
		w.set(func(w *wire) { w.up, w.down = drip, drip })
	}
	c.acks(100)
	for _, w := range wires {
		w.heal()
	}
	for range 40 {
		pick(c.r, wires).cut()
		c.acks(1 + c.r.Int64N(10))
	}
}

func cutOff(which func(c *chaos) *wire) func(c *chaos) {
	return func(c *chaos) {
		w := which(c)
		for _, way := range [][2]bool{{true, false}, {false, true}, {true, true}} {
			w.hold(way[0], way[1])
			c.lasts(2 * time.Second)
			if c.r.IntN(2) == 0 {
				w.cut() // as when the other side gave up meanwhile
			}
			w.heal()
			c.acks(50)
		}
	}
}
