package buffer

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// checks judges what a server said of itself.
func (f *redisFacts) checks() []Check {
	var out []Check
	for _, check := range []func(*redisFacts) Check{
		checkPersistence, checkPolicy, checkMemory, checkAOFStatus, checkSnapshots, checkRole, checkReplicas,
		checkCluster, checkRedisVersion, checkSharing, checkClients, checkScriptTime, checkRedisClock,
	} {
		c := check(f)
		if c.Name == "" { // it cannot be told, and another check says why
			continue
		}
		if f.server != "" {
			c.Text = f.server + ": " + c.Text
		}
		out = append(out, c)
	}
	return out
}

// syncs reports whether a write is on disk before it is answered.
func (f *redisFacts) syncs() bool {
	return f.config["appendonly"] == "yes" && f.config["appendfsync"] == "always" && f.config["no-appendfsync-on-rewrite"] == "no"
}

func checkPersistence(f *redisFacts) Check {
	switch {
	case f.config == nil:
		return Risk(GroupRedis, "config", "", "Redis does not let Headpond read its configuration (CONFIG GET); the durability of writes is given as memory.")
	case f.config["appendonly"] != "yes":
		return Risk(GroupRedis, "appendonly", "CONFIG SET appendonly yes, CONFIG SET appendfsync always",
			"Redis keeps writes in memory only: a crash of Redis loses what is not yet in Postgres.")
	case f.config["appendfsync"] == "no":
		return Risk(GroupRedis, "appendfsync", "CONFIG SET appendfsync always",
			"Redis leaves it to the kernel when its log goes to disk, which may take 30 seconds: a crash of the machine can lose what was accepted in that time.")
	case f.config["appendfsync"] != "always":
		return Risk(GroupRedis, "appendfsync", "CONFIG SET appendfsync always",
			"Redis writes its log to disk every second or so: a crash of Redis or of the machine can lose the last seconds of accepted writes.")
	case f.config["no-appendfsync-on-rewrite"] == "yes":
		return Risk(GroupRedis, "no-appendfsync-on-rewrite", "CONFIG SET no-appendfsync-on-rewrite no",
			"Redis does not fsync while it rewrites its log: a crash of the machine in that time loses accepted writes.")
	}
	return Fine(GroupRedis, "appendfsync", "Each write is on Redis' disk before it is answered.")
}

// checkPolicy: only keys without which nothing is lost may be evicted. Those have
// a TTL, and no other key has.
func checkPolicy(f *redisFacts) Check {
	const name = "maxmemory-policy"
	policy := f.config[name]
	switch {
	case f.config == nil:
		return Check{}
	case strings.HasPrefix(policy, "allkeys-"):
		c := Wrong(GroupRedis, name, "CONFIG SET maxmemory-policy noeviction (or volatile-lru)", "Redis' maxmemory-policy is %s: it may evict accepted rows.", policy)
		c.Unsafe = true
		return c
	case strings.HasPrefix(policy, "volatile-"):
		return Fine(GroupRedis, name, "Under %s Redis evicts cached rows only.", policy)
	}
	return Fine(GroupRedis, name, "Under %s Redis evicts nothing: when its memory is full, writes are refused.", policy)
}

// A Redis below leastMemory has room for some ten thousand rows beside itself.
const leastMemory = 32 << 20

func checkMemory(f *redisFacts) Check {
	const name = "maxmemory"
	if f.config == nil {
		return Check{}
	}
	most, used, machine := numberIn(f.config, name), numberIn(f.info, "used_memory"), numberIn(f.info, "total_system_memory")
	switch {
	case most == 0:
		half := "half of what the machine has"
		if machine > 0 {
			half = fmt.Sprintf("%dmb", machine>>21)
		}
		return Risk(GroupRedis, name, "CONFIG SET maxmemory "+half,
			"Redis has no limit of memory: when Postgres is away for long, the machine may run out of it and kill Redis.")
	case used > most/10*9:
		return Wrong(GroupRedis, name, moreMemory(max(most, used), machine),
			"Redis uses %s of the %s that it may: writes are refused, or soon will be.", bytesText(used), bytesText(most))
	case most < leastMemory:
		return Risk(GroupRedis, name, "CONFIG SET maxmemory 1gb", "Redis may use %s of memory only: the backlog has no room.", bytesText(most))
	case machine > 0 && most > machine/10*8:
		return Risk(GroupRedis, name, fmt.Sprintf("CONFIG SET maxmemory %dmb", machine>>21),
			"Redis may use %s of the machine's %s: while it rewrites its log it can need twice that.", bytesText(most), bytesText(machine))
	}
	return Fine(GroupRedis, name, "Redis uses %s of %s.", bytesText(used), bytesText(most))
}

// moreMemory gives a Redis twice what it has or uses, if the machine has that.
func moreMemory(now, machine int64) string {
	if machine > 0 && 2*now > machine/10*8 {
		return "give Redis a machine with more memory, or let Postgres catch up"
	}
	return fmt.Sprintf("redis-cli CONFIG SET maxmemory %d", 2*now)
}

func checkAOFStatus(f *redisFacts) Check {
	const name = "aof"
	switch {
	case f.info == nil:
		return Risk(GroupRedis, "info", "", "Redis does not let Headpond read its state (INFO): trouble with its disk, memory or replicas is not seen.")
	case f.info["aof_enabled"] != "1":
		return Check{}
	case f.info["aof_last_write_status"] != "ok":
		return Wrong(GroupRedis, name, "free space on Redis' disk", "Redis cannot write its log to disk; it refuses writes until it can.")
	case f.info["aof_last_bgrewrite_status"] != "ok":
		return Risk(GroupRedis, name, "free space on Redis' disk, then BGREWRITEAOF", "Redis could not rewrite its log: the file grows without end.")
	}
	return Fine(GroupRedis, name, "The last write and the last rewrite of Redis' log went well.")
}

// checkSnapshots: RDB snapshots protect nothing here, but one that fails makes
// Redis refuse writes.
func checkSnapshots(f *redisFacts) Check {
	switch {
	case f.config == nil || f.info == nil || f.config["save"] == "":
		return Check{}
	case f.info["rdb_last_bgsave_status"] != "ok" && f.config["stop-writes-on-bgsave-error"] == "yes":
		return Wrong(GroupRedis, "save", `free space on Redis' disk, then BGSAVE; or CONFIG SET save ""`, "Redis' last snapshot failed, and so it refuses writes.")
	case f.info["rdb_last_bgsave_status"] != "ok":
		return Risk(GroupRedis, "save", "free space on Redis' disk, then BGSAVE", "Redis' last snapshot failed.")
	}
	return Fine(GroupRedis, "save", "Redis makes snapshots (save %s). The log is what recovers writes; they cost a fork each.", f.config["save"])
}

func checkRole(f *redisFacts) Check {
	switch {
	case f.info == nil:
		return Check{}
	case f.info["role"] == "slave":
		return Wrong(GroupRedis, "role", fmt.Sprintf("point REDIS_URL at %s:%s, or REPLICAOF NO ONE", f.info["master_host"], f.info["master_port"]),
			"This Redis is a replica: it refuses writes.")
	}
	return Fine(GroupRedis, "role", "This Redis takes writes.")
}

func checkReplicas(f *redisFacts) Check {
	const name = "replicas"
	if f.info == nil || f.config == nil || f.info["role"] == "slave" {
		return Check{}
	}
	replicas, need := numberIn(f.info, "connected_slaves"), numberIn(f.config, "min-replicas-to-write")
	switch {
	case need > 0 && numberIn(f.info, "min_slaves_good_slaves") < need:
		return Wrong(GroupRedis, name, "bring the replicas back, or CONFIG SET min-replicas-to-write 0",
			"Redis refuses writes: it wants %d replicas that follow it, and %d do.", need, numberIn(f.info, "min_slaves_good_slaves"))
	case replicas > 0 && need == 0:
		return Risk(GroupRedis, name, "CONFIG SET min-replicas-to-write 1, CONFIG SET min-replicas-max-lag 10",
			"Redis has %d replicas, and takes writes when none of them follows: a failover then loses accepted writes (Headpond finds that out, and counts them).", replicas)
	case replicas == 0:
		return Fine(GroupRedis, name, "Redis has no replica: with its disk, what is not yet in Postgres is lost.")
	}
	return Fine(GroupRedis, name, "Redis has %d replicas, and refuses writes when fewer than %d follow it within %s s.", replicas, need, f.config["min-replicas-max-lag"])
}

func checkCluster(f *redisFacts) Check {
	const name = "cluster"
	switch {
	case f.info["cluster_enabled"] != "1":
		return Check{}
	case f.info["cluster_state"] != "ok":
		return Wrong(GroupRedis, name, "redis-cli --cluster check, then --cluster fix", "The cluster does not serve all its slots: partitions there take no writes.")
	case !f.clustered:
		return Wrong(GroupRedis, name, "REDIS_URL=redis://a:6379?addr=b:6379&addr=c:6379", "This Redis is a node of a cluster, and REDIS_URL names it alone: most partitions lie on others.")
	}
	return Fine(GroupRedis, name, "The cluster serves all its slots.")
}

func checkRedisVersion(f *redisFacts) Check {
	const name = "version"
	if f.info == nil {
		return Check{}
	}
	version := f.info["redis_version"]
	var major, minor, patch int
	if n, _ := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch); n < 2 {
		return Risk(GroupRedis, name, "", "Redis says that its version is %q, which is not one that Headpond knows.", version)
	}
	switch at := []int{major, minor, patch}; {
	case slices.Compare(at, []int{7, 0, 0}) < 0:
		return Risk(GroupRedis, name, "install Redis 7.2 or later", "Redis %s is older than any that Headpond is tested with (7.0).", version)
	case slices.Compare(at, []int{7, 0, 11}) < 0:
		return Risk(GroupRedis, name, "install a later Redis", "Redis %s may skip the fsync when appendfsync is set while it runs (mended in 7.0.11).", version)
	case major == 7 && minor < 2:
		return Fine(GroupRedis, name, "Redis %s. Its makers mend 7.0 no more; some distributions do.", version)
	}
	return Fine(GroupRedis, name, "Redis %s.", version)
}

func checkSharing(f *redisFacts) Check {
	const name = "sharing"
	var others []string
	for line, value := range f.info {
		if strings.HasPrefix(line, "db") && line != f.database && strings.HasPrefix(value, "keys=") {
			others = append(others, strings.TrimPrefix(line, "db"))
		}
	}
	slices.Sort(others)
	switch {
	case f.foreign > 0:
		return Risk(GroupRedis, name, "give Headpond a Redis of its own",
			"Keys of other programs lie beside Headpond's (%d of those looked at): they share its memory, and a FLUSHDB of theirs takes the backlog along.", f.foreign)
	case len(others) > 0:
		return Risk(GroupRedis, name, "give Headpond a Redis of its own",
			"Other databases of this Redis are in use (%s): they share its memory, and a FLUSHALL takes the backlog along.", strings.Join(others, ", "))
	}
	return Fine(GroupRedis, name, "Nobody else has keys in this Redis.")
}

// A process of Headpond holds up to 32 connections, and one to listen.
func checkClients(f *redisFacts) Check {
	most, now := numberIn(f.config, "maxclients"), numberIn(f.info, "connected_clients")
	if most == 0 || now == 0 {
		return Check{}
	}
	if now > most/10*9 || most-now < 33 {
		return Risk(GroupRedis, "maxclients", "CONFIG SET maxclients 10000", "%d of the %d connections that Redis takes are in use; Headpond may not get one.", now, most)
	}
	return Fine(GroupRedis, "maxclients", "%d of %d connections are in use.", now, most)
}

// A call of Headpond is a few milliseconds; above the limit Redis answers BUSY.
func checkScriptTime(f *redisFacts) Check {
	limit, err := time.ParseDuration(f.config["lua-time-limit"] + "ms")
	if f.config == nil || err != nil || limit == 0 || limit >= time.Second {
		return Check{}
	}
	return Risk(GroupRedis, "lua-time-limit", "CONFIG SET lua-time-limit 5000", "Redis answers BUSY when a script runs for longer than %s: under load that refuses writes for nothing.", limit)
}

// clockTolerance: times of marks, lags and TTLs are told by several clocks.
const clockTolerance = time.Second

func checkRedisClock(f *redisFacts) Check {
	if f.ahead.Abs() <= clockTolerance {
		return Fine(GroupRedis, "clock", "Redis' clock agrees with Headpond's.")
	}
	return Risk(GroupRedis, "clock", "run chrony or systemd-timesyncd on both machines",
		"Redis' clock is %s off Headpond's: cached rows end at another time than they should.", f.ahead.Abs().Round(100*time.Millisecond))
}
