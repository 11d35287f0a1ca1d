package buffer

import (
	"context"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// Memory is how much of its memory Redis uses: of the fullest node, when it is a
// cluster.
type Memory struct {
	Used    int64 // bytes; without what Redis itself does not count against its limit
	Pinned  int64 // of Used, what no eviction can free
	Max     int64 // bytes that Redis may use; that of the machine when it has no limit
	Limited bool  // Redis has a limit (maxmemory)
	Policy  string
	fixed   int64 // of Used, what is no key: the program, buffers of clients
}

// Memory asks Redis how much memory it uses. places are all that have a log
// there; they are looked at only when the rest of Redis may be evicted, and half
// of it is used.
func (b *Buffer) Memory(ctx context.Context, places []Place) (Memory, error) {
	var worst Memory
	nodes := 1
	one := func(ctx context.Context, c redis.Cmdable) error {
		text, err := c.Info(ctx, "memory").Result()
		if err != nil {
			return unavailable("read memory of Redis", err)
		}
		if m := readMemory(text); m.Max > 0 && float64(m.Used)*float64(max(worst.Max, 1)) >= float64(worst.Used)*float64(m.Max) {
			worst = m
		}
		return nil
	}
	var err error
	if cluster, ok := b.rdb.(*redis.ClusterClient); ok {
		var mu sync.Mutex
		nodes = 0
		err = cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error {
			mu.Lock()
			defer mu.Unlock()
			nodes++
			return one(ctx, c)
		})
	} else {
		err = one(ctx, b.rdb)
	}
	if err != nil {
		return worst, err
	}
	worst.Pinned = worst.Used
	if strings.HasPrefix(worst.Policy, "volatile-") && worst.Used >= worst.Max/2 {
		pinned, err := b.pinned(ctx, places)
		if err != nil {
			return worst, err
		}
		worst.Pinned = min(worst.fixed+pinned/int64(max(nodes, 1)), worst.Used)
	}
	return worst, nil
}

// readMemory reads the section memory of INFO. Source: Redis 7.0 server.c
// (genRedisInfoString), evict.c (freeMemoryGetNotCountedMemory).
func readMemory(info string) Memory {
	fields := make(map[string]string)
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			fields[name] = value
		}
	}
	n := func(name string) int64 { x, _ := strconv.ParseInt(fields[name], 10, 64); return x }
	m := Memory{
		Used: max(n("used_memory")-n("mem_not_counted_for_evict"), 0), Max: n("maxmemory"), Policy: fields["maxmemory_policy"],
		fixed: n("used_memory_startup") + n("mem_clients_normal") + n("used_memory_vm_total"),
	}
	m.Limited = m.Max > 0
	if !m.Limited {
		m.Max = n("total_system_memory")
		m.Used = max(m.Used, n("used_memory_rss")) // that is what a machine runs out of
	}
	return m
}

// pinned is what the keys that carry no TTL take: logs, indexes, marks. With a
// policy volatile-* all else may go.
func (b *Buffer) pinned(ctx context.Context, places []Place) (size int64, err error) {
	pipe := b.rdb.Pipeline()
	metas := make([]*redis.SliceCmd, len(places))
	for i, p := range places {
		metas[i] = pipe.HMGet(ctx, p.meta(), "glo", "gen", "ig")
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return 0, unavailable("read generations", err)
	}
	pipe = b.rdb.Pipeline()
	var sizes []*redis.IntCmd
	for i, p := range places {
		n := func(j int) int64 {
			s, _ := metas[i].Val()[j].(string)
			x, _ := strconv.ParseInt(s, 10, 64)
			return x
		}
		keys := []string{p.log(), p.meta(), p.commits()}
		for g := n(0); g <= n(1); g++ {
			keys = append(keys, p.dirty(g))
		}
		for g := n(2); g > 0 && g >= n(2)-1; g-- {
			keys = append(keys, p.marks(g))
		}
		for _, key := range keys {
			sizes = append(sizes, pipe.MemoryUsage(ctx, key))
		}
	}
	_, _ = pipe.Exec(ctx) // a key that is not there, or may not be measured, counts nothing
	for _, s := range sizes {
		size += s.Val()
	}
	return size, nil
}
