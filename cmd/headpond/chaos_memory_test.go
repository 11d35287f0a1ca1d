//go:build linux

package main_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// Faults of Redis' memory and configuration.
var memoryFaults = []*fault{
	{
		id: "F32", what: "Redis out of memory", mode: "S", soak: true, happen: outOfMemory,
		how: "maxmemory set below what is in use, noeviction, until writes were refused (503, not applied); then lifted",
	},
	{
		id: "F33", what: "eviction", mode: "S", happen: eviction,
		how: "volatile-lru and 30,000 clean keys of others with a time to live over maxmemory: some are evicted, under load",
	},
	{
		id: "F34", what: "unsafe configuration", mode: "S", happen: unsafeConfig,
		how: "maxmemory-policy allkeys-lru: an API that is started refuses to; appendfsync no: one that is started calls its writes memory",
	},
}

func (c *chaos) usedMemory() int64 {
	info, _ := c.command("INFO", "memory").(string)
	for line := range strings.Lines(info) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "used_memory:"); ok {
			n, err := strconv.ParseInt(text, 10, 64)
			require.NoError(c, err)
			return n
		}
	}
	require.FailNow(c, "INFO does not tell used_memory")
	return 0
}

func outOfMemory(c *chaos) {
	c.command("CONFIG", "SET", "maxmemory", c.usedMemory()/2)
	c.refusals(1)
	c.lasts(time.Second)
	c.command("CONFIG", "SET", "maxmemory", 0)
}

func eviction(c *chaos) {
	c.command("CONFIG", "SET", "maxmemory-policy", "volatile-lru")
	before := c.usedMemory()
	require.NoError(c, c.eachRedis(func(ctx context.Context, rdb *redis.Client) error {
		pipe := rdb.Pipeline()
		for i := range 30_000 {
			pipe.Set(ctx, fmt.Sprint(chaosFiller, i), strings.Repeat("x", 200), time.Hour)
		}
		_, err := pipe.Exec(ctx)
		return err
	}))
	c.command("CONFIG", "SET", "maxmemory", before+(c.usedMemory()-before)/2)
	c.acks(2 * leastRows)
	info, _ := c.command("INFO", "stats").(string)
	require.NotContains(c, info, "evicted_keys:0\r\n", "nothing was evicted")
	c.command("CONFIG", "SET", "maxmemory", 0)
}

func unsafeConfig(c *chaos) {
	serve := func() *process {
		return start(c.T, c.program, c.apiEnv(), "serve", "--role", "api", "--listen", "127.0.0.1:0", "--config", c.config)
	}
	c.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
	p := serve()
	p.killed = true // it ends by itself, with an error
	require.NotZero(c, p.wait(), "it serves with a Redis that may evict accepted rows")
	c.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
	c.command("CONFIG", "SET", "appendfsync", "no")
	h := &headpond{process: serve()}
	h.api, _ = h.logged("serving")["url"].(string)
	h.logged("catalog read")
	h.serves(c.T, chaosNames...)
	o := &chaosOp{Client: chaosClients, From: c.load.probe(), Count: 1, Table: "chaos_keyed"}
	path, body := o.request()
	a, err := h.post(strings.TrimPrefix(path, "/v1/"), typeJSON, body)
	o.judge(a, err)
	c.load.note(o)
	require.Equal(c, "memory", a.header.Get("Headpond-Durability"), "%d %s %v", a.code, a.body, err)
	c.command("CONFIG", "SET", "appendfsync", "always")
}
