//go:build linux

package main_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/headpond/headpond/cmd/headpond/up"
)

// Faults of several Redis servers. Headpond has one address of Redis; what
// leads it to the new master is a proxy here, as it is a service name or a
// virtual address elsewhere.
var failoverFaults = []*fault{
	{
		id: "F39", what: "failover to a replica that lags", mode: "R", rewinds: true, happen: laggingReplica,
		how: "the replica is cut off (REPLICAOF nobody), more load, the master killed, the replica promoted; the APIs live on",
	},
	{
		id: "F40", what: "failover to a replica that is current", mode: "R", happen: currentReplica,
		how: "the load is held for a moment until the replica has everything, the master killed, the replica promoted",
	},
	{
		id: "F41", what: "old master comes back", mode: "R", rewinds: true, anyOrder: true, happen: splitBrain,
		how: "one API goes on writing to the old master while the other one writes to the promoted replica; then the old one becomes its replica",
	},
	{
		id: "F43", what: "slots move in a cluster", mode: "S", happen: reshard, stack: stackOptions{cluster: true},
		how: "three masters; every slot of Headpond is moved from one to the next, key by key, under load (MOVED, ASK, TRYAGAIN)",
	},
}

// replica of c.redis that has caught up.
func (c *chaos) replica() *up.Redis {
	r := c.startRedis(filepath.Join(c.dir, "replica"))
	host, port, err := net.SplitHostPort(c.redis.Addr())
	require.NoError(c, err)
	c.tell(r, "REPLICAOF", host, port)
	c.await("the replica", func() bool {
		info, _ := c.tell(r, "INFO", "replication").(string)
		return strings.Contains(info, "master_link_status:up")
	})
	return r
}

// tell one of several servers.
func (c *chaos) tell(r *up.Redis, args ...any) any {
	c.Helper()
	was := c.redis
	c.redis = r
	defer func() { c.redis = was }()
	return c.command(args...)
}

// promote the replica and lead everybody there.
func (c *chaos) promote(r *up.Redis) {
	c.tell(r, "REPLICAOF", "NO", "ONE")
	c.redis = r
	c.apiRedis.point(r.Addr())
	c.flushRedis.point(r.Addr())
}

func laggingReplica(c *chaos) {
	r := c.replica()
	c.acks(leastRows)
	c.tell(r, "REPLICAOF", "127.0.0.1", "1")
	c.commits(leastRows)
	c.acks(leastRows)
	require.NoError(c, c.redis.Kill())
	c.promote(r)
}

func currentReplica(c *chaos) {
	r := c.replica()
	c.acks(leastRows)
	c.apiRedis.hold(true, true)
	c.flushRedis.hold(true, true)
	offset := func(r *up.Redis) string {
		info, _ := c.tell(r, "INFO", "replication").(string)
		_, rest, _ := strings.Cut(info, "master_repl_offset:")
		text, _, _ := strings.Cut(rest, "\r\n")
		return text
	}
	c.await("the replica to have everything", func() bool { return offset(r) == offset(c.redis) })
	require.NoError(c, c.redis.Kill())
	c.promote(r)
	c.apiRedis.heal()
	c.flushRedis.heal()
}

func splitBrain(c *chaos) {
	old, r := c.redis, c.replica()
	c.acks(leastRows)
	was := c.apiRedis
	c.apiRedis = newWire(c.T, old.Addr())
	late := c.startAPI() // it is the last to be led to the new master
	lateWire := c.apiRedis
	c.apiRedis = was
	c.promote(r)
	c.lasts(4 * time.Second) // to take no writes at all meanwhile is right
	c.tell(old, "REPLICAOF", "127.0.0.1", strings.TrimPrefix(r.Addr(), "127.0.0.1:"))
	lateWire.point(r.Addr())
	c.acks(leastRows)
	require.False(c, late.ended())
}

// startCluster starts three masters with all slots.
func (c *chaos) startCluster() (url string) {
	var addrs []string
	ctx := c.Context()
	for i := range 3 {
		port := freePort(c)
		dir := filepath.Join(c.dir, "node"+strconv.Itoa(i))
		makeDir(c, dir)
		start(c.T, "redis-server", nil, "--port", port, "--bind", "127.0.0.1", "--dir", dir, "--cluster-enabled", "yes",
			"--appendonly", "yes", "--appendfsync", "always", "--save", "", "--cluster-require-full-coverage", "no")
		addrs = append(addrs, "127.0.0.1:"+port)
	}
	for i, addr := range addrs {
		rdb := redis.NewClient(&redis.Options{Addr: addr})
		c.Cleanup(func() { _ = rdb.Close() })
		c.await("node "+addr, func() bool { return rdb.Ping(ctx).Err() == nil })
		const all = 16384
		require.NoError(c, rdb.ClusterAddSlotsRange(ctx, i*all/3, (i+1)*all/3-1).Err())
		require.NoError(c, rdb.Do(ctx, "CLUSTER", "SET-CONFIG-EPOCH", i+1).Err())
	}
	first := redis.NewClient(&redis.Options{Addr: addrs[0]})
	defer func() { _ = first.Close() }()
	for _, addr := range addrs[1:] {
		host, port, _ := strings.Cut(addr, ":")
		require.NoError(c, first.ClusterMeet(ctx, host, port).Err())
	}
	for _, addr := range addrs {
		rdb := redis.NewClient(&redis.Options{Addr: addr})
		c.await("the cluster", func() bool {
			info, _ := rdb.ClusterInfo(ctx).Result()
			return strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3") && strings.Contains(info, "cluster_slots_assigned:16384")
		})
		_ = rdb.Close()
	}
	return "redis://" + addrs[0] + "?addr=" + addrs[1] + "&addr=" + addrs[2]
}

// reshard moves every slot in which a key of ours lies to the next master.
func reshard(c *chaos) {
	type node struct {
		id  string
		rdb *redis.Client
	}
	var nodes []node
	slots := make(map[int]int) // and the node that has it
	require.NoError(c, c.eachRedis(func(context.Context, *redis.Client) error { return nil }))
	o, err := redis.ParseClusterURL(c.cluster)
	require.NoError(c, err)
	ctx := c.Context()
	for i, addr := range o.Addrs {
		rdb := redis.NewClient(&redis.Options{Addr: addr})
		defer func() { _ = rdb.Close() }()
		id, err := rdb.Do(ctx, "CLUSTER", "MYID").Text()
		require.NoError(c, err)
		nodes = append(nodes, node{id, rdb})
		for keys := rdb.Scan(ctx, 0, "hp:*:meta", 1000).Iterator(); keys.Next(ctx); {
			slot, err := rdb.ClusterKeySlot(ctx, keys.Val()).Result()
			require.NoError(c, err)
			slots[int(slot)] = i
		}
	}
	c.step("%d slots move", len(slots))
	for slot, i := range slots {
		from, to := nodes[i], nodes[(i+1)%len(nodes)]
		set := func(n node, args ...any) {
			require.NoError(c, n.rdb.Do(ctx, append([]any{"CLUSTER", "SETSLOT", slot}, args...)...).Err())
		}
		set(to, "IMPORTING", from.id)
		set(from, "MIGRATING", to.id)
		c.acks(20) // nothing has moved yet, but keys that are not there are looked for on the other side
		host, port, _ := strings.Cut(to.rdb.Options().Addr, ":")
		for {
			keys, err := from.rdb.ClusterGetKeysInSlot(ctx, slot, 2).Result()
			require.NoError(c, err)
			if len(keys) == 0 {
				break
			}
			args := []any{"MIGRATE", host, port, "", 0, 5000, "KEYS"}
			for _, k := range keys {
				args = append(args, k)
			}
			require.NoError(c, from.rdb.Do(ctx, args...).Err())
			<-time.After(2 * time.Millisecond) // calls that need both halves are refused meanwhile
		}
		for _, n := range []node{to, from, nodes[(i+2)%len(nodes)]} {
			set(n, "NODE", to.id)
		}
		c.acks(5)
	}
	require.NotEmpty(c, slots, fmt.Sprint("no slot of ours in ", o.Addrs))
}
